"""A URDF as a MuJoCo model: mesh paths resolved, and what MuJoCo does not take left out or refused."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

PACKAGE = "package://"
_MESHES = (".stl", ".obj", ".msh")


def urdf_spec(path: Path, meshes: Path | None) -> Any:
    """The ``mujoco.MjSpec`` of the URDF at `path`.

    ``package://NAME/FILE`` is looked for in `meshes`, or in the folders above the file, as ``NAME/FILE`` and,
    where the folder is the package's own, as ``FILE``. Other paths are relative to the file. A joint that
    mimics another follows it.

    Raises:
        OSError: the file cannot be read. ValueError: it is no URDF that MuJoCo takes, or a mesh is not there.
    """
    import mujoco

    try:
        robot = ElementTree.fromstring(path.read_text(encoding="utf-8"))  # noqa: S314 - the user's own file
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise ValueError(f"not XML: {error}") from None
    if robot.tag != "robot":
        raise ValueError(f"not a URDF: it begins with <{robot.tag}>")
    for link in robot.findall("link"):
        _resolve(link, path.resolve().parent, meshes)
    _compiler(robot)
    spec = mujoco.MjSpec.from_string(ElementTree.tostring(robot, encoding="unicode"))
    coupled = {each.name1 for each in spec.equalities}
    for joint in robot.findall("joint"):
        mimic, name = joint.find("mimic"), joint.get("name", "")
        if mimic is not None and name not in coupled:
            _couple(spec, name, mimic)
    return spec


def _resolve(link: Any, folder: Path, meshes: Path | None) -> None:
    """Absolute paths; looks in a format that MuJoCo does not read are left out."""
    for kind in ("visual", "collision"):
        for part in link.findall(kind):
            mesh = part.find("geometry/mesh")
            if mesh is None:
                continue
            given = mesh.get("filename", "")
            if Path(given).suffix.lower() not in _MESHES:
                if kind == "collision":
                    raise ValueError(f"mesh {given}: collision meshes must be {', '.join(_MESHES)}")
                link.remove(part)
                continue
            mesh.set("filename", str(_mesh_file(given, folder, meshes)))


def _mesh_file(given: str, folder: Path, meshes: Path | None) -> Path:
    if not given.startswith(PACKAGE):
        file = folder / given.removeprefix("file://")
        if not file.is_file():
            raise ValueError(f"mesh {given}: no file {file}")
        return file
    inside = given.removeprefix(PACKAGE)
    within_package = inside.partition("/")[2]
    above = [meshes.resolve()] if meshes is not None else [folder, *folder.parents]
    for place in above:
        for file in (place / inside, place / within_package):
            if file.is_file():
                return file
    where = str(meshes) if meshes is not None else f"{folder} and the folders above it"
    raise ValueError(f"mesh {given}: not found in {where}; give body.meshes, the folder that holds {inside}")


def _compiler(robot: Any) -> None:
    """MuJoCo's own settings in a URDF: paths as they stand, looks kept, a fixed base's frame kept."""
    extension = robot.find("mujoco")
    if extension is None:
        extension = ElementTree.SubElement(robot, "mujoco")
    compiler = extension.find("compiler")
    if compiler is None:
        compiler = ElementTree.SubElement(extension, "compiler")
    compiler.attrib.pop("meshdir", None)
    compiler.set("strippath", "false")
    for key, value in (("discardvisual", "false"), ("fusestatic", "false"), ("balanceinertia", "true")):
        compiler.attrib.setdefault(key, value)


def _couple(spec: Any, name: str, mimic: Any) -> None:
    import mujoco

    numbers = [float(mimic.get("offset", 0.0)), float(mimic.get("multiplier", 1.0)), 0.0, 0.0, 0.0]
    coupling = spec.add_equality(type=mujoco.mjtEq.mjEQ_JOINT, name1=name, name2=mimic.get("joint", ""))
    coupling.objtype = mujoco.mjtObj.mjOBJ_JOINT
    coupling.data[:5] = numbers
