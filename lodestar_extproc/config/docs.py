"""settings_page(): docs/settings.md, made from the settings' own declarations."""

from __future__ import annotations

from lodestar_extproc.config.setting import settings_of, shown
from lodestar_extproc.config.settings import EndpointSettings, PoolSettings
from lodestar_extproc.names import COST, POLICY, POOL

_INTRO = """\
# Settings

<!-- Written by `python -m lodestar_extproc.config`. Change the declarations, not this page. -->

All settings stand in the Envoy YAML; there is no second file.
A cluster whose metadata has the key `lodestar` is a **pool**: its endpoints are what Lodestar \
chooses among.
Unknown keys and impossible values are errors that name the line.
The file is watched: a good change applies at once, a bad one is refused and the old settings stay.
Settings of the connection to Envoy itself are checked by `lodestar-extproc check FILE`.
"""

_POOL = """\
## A pool

Under `metadata.filter_metadata.lodestar` of the cluster:

```yaml
clusters:
- name: engines
  metadata:
    filter_metadata:
      lodestar: {policy: learned, scrape_interval_s: 0.2}
```
"""

_ENDPOINT = """\
## An endpoint

Under `metadata.filter_metadata.lodestar` of one of the cluster's `lb_endpoints`:

```yaml
lb_endpoints:
- endpoint: {address: {socket_address: {address: 10.0.0.7, port_value: 8000}}}
  metadata: {filter_metadata: {lodestar: {accelerator: h100}}}
```
"""

_ROUTE = f"""\
## A route

A route overrides its pool's settings by the gRPC metadata that Envoy sends with each request:

```yaml
routes:
- match: {{prefix: /batch/}}
  route: {{cluster: engines, timeout: 0s}}
  typed_per_filter_config:
    lodestar.decide:
      "@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute
      overrides:
        grpc_initial_metadata:
        - {{key: {POLICY}, value: least_request}}
```

| key | value |
|---|---|
| `{POOL}` | Name of a pool; without it, the pool is the route's cluster. |
| `{POLICY}` | As `policy` above. |
| `{COST}` | As `cost` above. |
"""


def settings_page() -> str:
    """The page, in Markdown."""
    parts = (_INTRO, _POOL, _table(PoolSettings), _ENDPOINT, _table(EndpointSettings), _ROUTE)
    return "\n".join(parts)


def _table(owner: type) -> str:
    rows = [
        f"| `{s.name}` | `{shown(s.default)}` | {s.allowed} | {s.text} |"
        for s in settings_of(owner).values()
    ]
    return "\n".join(("| key | default | takes | what it does |", "|---|---|---|---|", *rows, ""))
