"""What some settings need beside what is always installed."""

from __future__ import annotations

from importlib.util import find_spec

from lodestar_extproc.config.setting import SettingError


def check_extras(*, predictor: str, kv_events: bool) -> None:
    """Refuse what cannot work here.

    Raises:
        SettingError: a library is missing; says which extra brings it.
    """
    if predictor == "mlp" and find_spec("sklearn") is None:
        raise SettingError(
            "predictor",
            '"mlp" is trained by scikit-learn, which is not installed: '
            "pip install 'lodestar-extproc[mlp]'",
        )
    missing = [name for name in ("zmq", "msgpack") if kv_events and find_spec(name) is None]
    if missing:
        raise SettingError(
            "kv_events",
            f"events are read by pyzmq and msgpack, and {' and '.join(missing)} cannot be "
            "imported: pip install 'lodestar-extproc[kv-events]'",
        )
