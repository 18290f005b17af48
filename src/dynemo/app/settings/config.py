"""A `Config` from flags, `DYNEMO_*` variables and a TOML file: flags win, then variables.

An unknown setting is refused wherever it comes from. A flag that does not apply to the run is
refused, too. A variable or a key that does not apply is left out, because workers, ingresses and
other runs share these.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynemo.app.settings.modes import Mode, parse_mode
from dynemo.app.settings.option import Option
from dynemo.app.settings.options import OPTIONS, Config
from dynemo.command_line.read import twice
from dynemo.environments.registry import ENGINES
from dynemo.errors import UsageError
from dynemo.spelling import either, quoted, unknown

_PREFIX = "DYNEMO_"
#: Of the project's tests; no run reads them.
_TEST_PREFIX = "DYNEMO_TEST_"
#: The variables that Kubernetes sets for each service, here for one named `dynemo-...`.
_SERVICE = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT_\d+_(TCP|UDP|SCTP)(_.*)?)")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://.*")
#: Names that are words of the command line, and the fields that they set.
_WORDS = {"in": "input", "out": "out"}
_BY_KEY = {key: option for option in OPTIONS for key in option.keys}
_LISTS = {key for key, option in _BY_KEY.items() if option.is_list}


@dataclass(frozen=True)
class Setting:
    value: Any
    source: str  #: as a message names it: `--http-port`, `DYNEMO_HTTP_PORT`, `http_port in FILE`
    text: str  #: as it was written
    is_flag: bool = False


@dataclass(frozen=True)
class Settings:
    """All settings that were given, by field, whether they apply or not. Made by `collect`."""

    by_field: Mapping[str, Setting]

    def mode(self) -> Mode:
        """Raises UsageError for an unknown input or output."""
        source, target = self.by_field.get("input"), self.by_field.get("out")
        return parse_mode(source.value if source else "", target.value if target else "")

    def for_mode(self, mode: Mode) -> tuple[Config, list[str]]:
        """The Config of a mode, and the sources of what is set and does not apply to it.

        Raises UsageError for a flag that does not apply.
        """
        values = {name: setting.value for name, setting in self.by_field.items()}
        unused: list[str] = []
        for is_late in (False, True):  # the needs are looked at among the settings that apply
            config = Config(**values)
            for option in OPTIONS:
                if option.field not in values:
                    continue
                setting = self.by_field[option.field]
                if problem := _refusal(setting.source, option, mode, config, is_late):
                    if setting.is_flag:
                        raise UsageError(problem)
                    unused.append(setting.source)
                    del values[option.field]
        return Config(**values), unused


def collect(given: Mapping[str, Setting], environment: Mapping[str, str] = os.environ) -> Settings:
    """All sources together; `given` comes from the command line, by field. Raises UsageError."""
    variables = _from_environment(environment)
    path = given.get("config") or variables.get("config")
    file = _from_file(path.value) if path else {}
    return Settings({**file, **variables, **given})


def _refusal(source: str, option: Option, mode: Mode, config: Config, is_late: bool) -> str:
    """Says that the option, which was given in `source`, does not apply; empty if it does."""
    scopes = [scope for scope in option.where if scope.has(mode)]
    if not scopes:
        needs = either(scope.words for scope in option.where if scope.inputs)
        advice = "".join(f" {scope.advice}" for scope in option.where if scope.advice)
        return f"{source} needs {needs}; this run has {mode}.{advice}"
    missing = [scope.missing(config) for scope in scopes]
    return f"{source} needs {missing[0]}." if is_late and all(missing) else ""


def _from_environment(environment: Mapping[str, str]) -> dict[str, Setting]:
    keys = [*_WORDS, *_BY_KEY]
    variables = {_PREFIX + key.upper(): key for key in keys}
    others = {name: option.field for option in OPTIONS for name in option.variables}
    engines = {name for entry in ENGINES.values() for name in entry.variables}
    found: dict[str, Setting] = {}
    for name, text in environment.items():
        if not name.startswith(_PREFIX) or name in engines or _is_foreign(name, text):
            continue
        if name not in variables:
            raise _unknown_variable(name, [*variables, *engines])
        if text:
            _add(found, _read(variables[name], text, name))
    for name, key in others.items():
        value = environment.get(name)
        if value and key not in found:
            _add(found, _read(key, value, name))
    return found


def _is_foreign(name: str, text: str) -> bool:
    """Whether Kubernetes or the tests have set it. A service `dynemo-http` has an address in
    DYNEMO_HTTP_PORT."""
    is_address = name.endswith("_PORT") and _SERVICE_URL.fullmatch(text) is not None
    return is_address or name.startswith(_TEST_PREFIX) or _SERVICE.fullmatch(name) is not None


def _unknown_variable(name: str, known: Iterable[str]) -> UsageError:
    names = [each.removeprefix(_PREFIX) for each in known]
    see = "`dynemo-run --help all` lists the settings."
    written = name.removeprefix(_PREFIX)
    return UsageError(unknown("variable", written, names, prefix=_PREFIX, otherwise=see))


def _from_file(path: Path) -> dict[str, Setting]:
    data = _read_toml(path)
    found: dict[str, Setting] = {}
    for key, value in data.items():
        name, source = key.replace("-", "_"), f"{key} in {quoted(str(path))}"
        if isinstance(value, dict):
            _refuse_table(key, value, path)
        _check_key(key, quoted(str(path)))
        if isinstance(value, list) and name in _LISTS:
            value = ",".join(map(str, value))
        if isinstance(value, bool | list):
            shown = str(value).lower() if isinstance(value, bool) else value
            raise UsageError(f"{source} takes text or a number, not {shown}.")
        _add(found, _read(name, str(value), source))
    return found


def _read_toml(path: Path) -> dict[str, Any]:
    from msgspec import DecodeError

    from dynemo.foreign import decode_toml

    try:
        return decode_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    except (DecodeError, UnicodeDecodeError) as error:
        why = f"is not valid TOML: {error}"
    raise UsageError(f"The file of --config, {quoted(str(path))}, {why}.")


def _refuse_table(name: str, table: Mapping[str, Any], path: Path) -> None:
    """Raises UsageError for its first key: that it is unknown, or where it belongs."""
    for key, value in table.items():
        if isinstance(value, dict):
            _refuse_table(f"{name}.{key}", value, path)
        _check_key(key, f"[{name}] of {quoted(str(path))}")
        raise UsageError(
            f"{quoted(key)} in {quoted(str(path))} stands in the table [{name}]; move it above the "
            "first table."
        )
    raise UsageError(
        f"[{name}] in {quoted(str(path))} is a table, and the file has none; remove it."
    )


def _check_key(key: str, place: str) -> None:
    names = [*_WORDS, *_BY_KEY]
    names.remove("config")
    if key.replace("-", "_") not in names:
        raise UsageError(unknown("setting", key, names, place=f" in {place}"))


def _read(key: str, text: str, source: str) -> tuple[str, Setting]:
    if key in _WORDS:
        return _WORDS[key], Setting(text, source, text)
    option = _BY_KEY[key]
    return option.field, Setting(option.read(text, source), source, text)


def _add(found: dict[str, Setting], pair: tuple[str, Setting]) -> None:
    """Raises UsageError if the same source has another value under another of its names."""
    name, setting = pair
    before = found.get(name)
    if before is not None and before.value != setting.value:
        raise UsageError(twice(f"{before.source} or {setting.source}", before.text, setting.text))
    found[name] = setting
