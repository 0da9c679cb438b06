"""render(): what a kustomization of ours comes to, in as much of kustomize as ours use.

Where `kubectl` is at hand, a test holds this to what the real one renders.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

FILE = "kustomization.yaml"
Object = dict[str, Any]


def documents(path: Path) -> list[Object]:
    return [document for document in YAML(typ="safe").load_all(path) if document]


def render(folder: Path, of: Iterable[Object] = ()) -> list[Object]:
    """The objects of the kustomization in *folder*.

    Args:
        of: what a component adds to and changes; without any, it is what it adds.
    """
    (kustomization,) = documents(folder / FILE)
    objects = copy.deepcopy(list(of))
    is_alone = kustomization["kind"] == "Component" and not objects
    objects += [o for name in kustomization.get("resources", ()) for o in _named(folder / name)]
    for name in kustomization.get("components", ()):
        objects = render(folder / name, objects)
    for generator in kustomization.get("configMapGenerator", ()):
        objects.append(_config_map(folder, generator))
    for labels in kustomization.get("labels", ()):
        assert labels["includeSelectors"]
        for found in objects:
            _label(found, labels["pairs"])
    for patch in () if is_alone else kustomization.get("patches", ()):
        _patch(objects, patch)
    return objects


def files(folder: Path) -> Iterator[Path]:
    """Every file that the kustomization in *folder* reads, itself included."""
    (kustomization,) = documents(folder / FILE)
    yield (folder / FILE).resolve()
    for key in ("resources", "components"):
        for name in kustomization.get(key, ()):
            path = folder / name
            yield from files(path) if path.is_dir() else [path.resolve()]
    for generator in kustomization.get("configMapGenerator", ()):
        yield from ((folder / name).resolve() for name in generator["files"])


def _named(path: Path) -> list[Object]:
    return render(path) if path.is_dir() else documents(path)


def _config_map(folder: Path, generator: Object) -> Object:
    data = {name: (folder / name).read_text() for name in generator["files"]}
    meta = {"name": generator["name"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def _label(found: Object, pairs: dict[str, str]) -> None:
    found["metadata"].setdefault("labels", {}).update(pairs)
    if found["kind"] == "Service":
        found["spec"].setdefault("selector", {}).update(pairs)
    if found["kind"] == "Deployment":
        selector = found["spec"].setdefault("selector", {})
        selector.setdefault("matchLabels", {}).update(pairs)
        meta = found["spec"]["template"].setdefault("metadata", {})
        meta.setdefault("labels", {}).update(pairs)


def _patch(objects: list[Object], patch: Object) -> None:
    targets = [
        found
        for found in objects
        if found["kind"] == patch["target"]["kind"]
        and found["metadata"]["name"] == patch["target"]["name"]
    ]
    assert targets, f"nothing to patch: {patch['target']}"
    for operation in YAML(typ="safe").load(patch["patch"]):
        assert operation["op"] == "add"
        *way, last = operation["path"].strip("/").split("/")
        for target in targets:
            place: Any = target
            for step in way:
                place = place[int(step)] if isinstance(place, list) else place[step]
            value = copy.deepcopy(operation["value"])
            if last == "-":
                place.append(value)
            else:
                place[last] = value


def rights_of(deployment: dict[str, Any]) -> list[str]:
    """What a pod of *deployment* may do that it need not; nothing is as it should be."""
    spec = deployment["spec"]["template"]["spec"]
    pod = spec.get("securityContext", {})
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    if not (pod.get("runAsNonRoot") and pod.get("runAsUser", 0) > 0):
        found.append("be root")
    if pod.get("seccompProfile") != {"type": "RuntimeDefault"}:
        found.append("make any system call")
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        own = container.get("securityContext", {})
        if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
            found.append(f"gain rights in {container['name']}")
        if own.get("readOnlyRootFilesystem") is not True:
            found.append(f"write to the image of {container['name']}")
        if own.get("capabilities") != {"drop": ["ALL"]}:
            found.append(f"use capabilities in {container['name']}")
    return found
