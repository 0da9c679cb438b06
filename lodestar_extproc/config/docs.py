"""settings_page(): docs/settings.md, made from the settings' own declarations."""

from __future__ import annotations

from lodestar_extproc.config.endpoint_settings import EndpointSettings
from lodestar_extproc.config.overrides import KEYS_BEFORE
from lodestar_extproc.config.setting import Setting, settings_of, shown
from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.names import COST, POLICY, POOL

_INTRO = """\
# Settings

<!-- Written by `python -m lodestar_extproc.config`. Change the declarations, not this page. -->

All settings stand in the Envoy YAML; there is no second file.
A cluster whose metadata has the key `lodestar` is a **pool**: its endpoints are what Lodestar \
chooses among.
Unknown keys and impossible values are errors that name the line.
The file is watched: a good change applies at once, a bad one is refused and the old settings stay.
A change of a setting that needs a restart, as its row then says, waits for one; the log says so.
A name of before is read as the name of now, with a warning that has its line.
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
_BEFORE = "".join(f"\n`{new}` was `{old}` before.\n" for old, new in KEYS_BEFORE.items())


def settings_page() -> str:
    """The page, in Markdown."""
    parts = (
        _INTRO,
        _POOL,
        _table(PoolSettings),
        _ENDPOINT,
        _table(EndpointSettings),
        _ROUTE + _BEFORE,
    )
    return "\n".join(parts)


def _what_it_does(setting: Setting) -> str:
    restart = " A change needs a restart." if setting.restart else ""
    before = f" Before: `{setting.was}`." if setting.was else ""
    return setting.text + restart + before


def _table(owner: type) -> str:
    rows = [
        f"| `{s.name}` | `{shown(s.default)}` | {s.allowed} | {_what_it_does(s)} |"
        for s in settings_of(owner).values()
    ]
    return "\n".join(("| key | default | takes | what it does |", "|---|---|---|---|", *rows, ""))
