"""Setting: one documented, bounded value of a settings dataclass, and how its values are checked.

It knows no file; `reader.py` gives a refused value its line.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from types import MappingProxyType, NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from lodestar_extproc.config.mapped import MappedSetting
from lodestar_extproc.config.scalars import number

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")


class SettingError(ValueError):
    """A value that a setting does not take; says which setting and what it takes."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        self.problem = problem


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """What a value may be, beyond its type."""

    choices: tuple[str, ...] = ()
    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    begins_with: str = ""

    def hold(self, value: object) -> bool:
        if isinstance(value, str):
            return (not self.choices or value in self.choices) and value.startswith(
                self.begins_with
            )
        if isinstance(value, (int, float)):
            return self.at_least <= value <= self.at_most and value > self.above
        return True

    def words(self) -> str:
        """As they follow "a number": "above 0"; empty where there are none."""
        parts = []
        if self.at_least > -math.inf and self.at_most < math.inf:
            parts.append(f"from {self.at_least:g} to {self.at_most:g}")
        elif self.at_least > -math.inf:
            parts.append(f"of at least {self.at_least:g}")
        if self.above > -math.inf:
            parts.append(f"above {self.above:g}")
        if self.begins_with:
            parts.append(f"beginning with {self.begins_with}")
        return " and ".join(parts)


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One field of a settings dataclass.

    Attributes:
        kind: bool, int, float, str, tuple for a list of str, or a `MappedSetting`.
        optional: whether null is a value.
        was: what it was called before; files may still say so.
        restart: whether a change has to wait for a restart.
    """

    name: str
    kind: type
    optional: bool
    default: object
    text: str
    bounds: Bounds
    was: str = ""
    restart: bool = False

    def parse(self, value: object) -> object:
        """*value* as the field holds it.

        Raises:
            SettingError: of the wrong type, or out of bounds.
        """
        if value is None and self.optional:
            return None
        if self.kind is tuple:
            return self._parse_list(value)
        if issubclass(self.kind, MappedSetting):
            return self._parse_mapping(self.kind, value)
        parsed = _AS_KIND[self.kind](value)
        if parsed is None or not self.bounds.hold(parsed):
            raise SettingError(self.name, f"{shown(value)} is not {self.allowed}")
        return parsed

    def _parse_list(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)):
            raise SettingError(self.name, f"{shown(value)} is not {self.allowed}")
        for item in value:
            if not isinstance(item, str) or not self.bounds.hold(item):
                raise SettingError(self.name, f"{shown(item)} does not belong to {self.allowed}")
        if len(set(value)) < len(value):
            raise SettingError(self.name, "it names one of its items twice")
        return tuple(value)

    def _parse_mapping(self, kind: type[MappedSetting], value: object) -> MappedSetting:
        if isinstance(value, kind):
            return value
        if not isinstance(value, dict):
            raise SettingError(self.name, f"{shown(value)} is not {self.allowed}")
        try:
            return kind.read({str(key): each for key, each in value.items()})
        except ValueError as error:
            raise SettingError(self.name, f"{error}; it takes {self.allowed}") from None

    @property
    def allowed(self) -> str:
        """What it takes, in words: `a number above 0`."""
        if issubclass(self.kind, MappedSetting):
            return self.kind.TAKES
        base = _KIND_NAMES[self.kind]
        if self.bounds.choices:
            choices = ", ".join(self.bounds.choices)
            base = f"a list of any of {choices}" if self.kind is tuple else f"one of {choices}"
        allowed = " ".join(filter(None, (base, self.bounds.words())))
        return f"{allowed}, or null" if self.optional else allowed


def setting(default: T, text: str, *, was: str = "", restart: bool = False, **bounds: Any) -> T:
    """A dataclass field: its default, one line of help, its `Bounds`; the rest as in `Setting`."""
    metadata = {"text": text, "bounds": Bounds(**bounds), "was": was, "restart": restart}
    field: T = dataclasses.field(default=default, metadata=metadata)
    return field


def settings_of(owner: type) -> Mapping[str, Setting]:
    """The settings of a dataclass made with `setting()`, by name, as declared."""
    hashable: Any = owner  # mypy holds that a class is not
    return _settings_of(hashable)


@functools.cache
def _settings_of(owner: type) -> Mapping[str, Setting]:
    hints = get_type_hints(owner)
    return {f.name: _described(f, hints[f.name]) for f in dataclasses.fields(owner)}


def check(settings: object) -> None:
    """Check every field of a settings dataclass; for its `__post_init__`.

    Raises:
        SettingError: the first one that is out of bounds.
    """
    for name, described in settings_of(type(settings)).items():
        described.parse(getattr(settings, name))


def until_restart(old: T, new: T) -> tuple[tuple[str, ...], T]:
    """Which changes from *old* settings to *new* ones need a restart, and *new* without them."""
    kept = {
        name: getattr(old, name)
        for name, described in settings_of(type(new)).items()
        if described.restart and getattr(old, name) != getattr(new, name)
    }
    changed: Any = new  # mypy holds that it is no dataclass
    return tuple(kept), dataclasses.replace(changed, **kept)


def shown(value: object) -> str:
    """*value* as it is written in YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (dict, MappedSetting)):
        return "a mapping" if len(value) else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(shown(item) for item in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _described(field: dataclasses.Field[Any], hint: Any) -> Setting:
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    kind = next(k for k in kinds if k is not NoneType)
    return Setting(
        name=field.name,
        kind=get_origin(kind) or kind,
        optional=NoneType in kinds,
        default=field.default,
        text=field.metadata["text"],
        bounds=field.metadata["bounds"],
        was=field.metadata["was"],
        restart=field.metadata["restart"],
    )


def _as_float(value: object) -> float | None:
    # In quotes too: Envoy keeps 0.5 as text, and so its dumps show it.
    parsed = number(value) if isinstance(value, (int, float, str)) else None
    return parsed if parsed is not None and math.isfinite(parsed) else None


def _as_int(value: object) -> int | None:
    # 50.0 too: Envoy's own dumps write every number so.
    number = _as_float(value)
    return int(number) if number is not None and number.is_integer() else None


def _as_bool(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _as_str(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


_AS_KIND = MappingProxyType({float: _as_float, int: _as_int, bool: _as_bool, str: _as_str})
_KIND_NAMES = MappingProxyType(
    {
        float: "a number",
        int: "a whole number",
        bool: "true or false",
        str: "text",
        tuple: "a list",
    }
)
