"""The endpoints and their load: what is counted, what is scraped, what caches probably hold."""
