"""The endpoints and their load: what is counted here, what is scraped, what their caches probably hold."""
