"""Makes epo_client/_proto, the modules of proto/epo/v1, when the package is built."""

import pathlib
import re
import shutil
import sys
import tempfile
from importlib import metadata
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StubsHook(BuildHookInterface):
    """A wheel gets the generated stubs; a source distribution gets the protos, which lie outside of this folder in the repository."""

    _temporary = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        protos = self._protos()
        if self.target_name == "sdist":
            build_data["force_include"][str(protos)] = "proto"
            return
        package = pathlib.Path(self.root, "epo_client", "_proto")
        # An editable installation imports from this folder; any other leaves it as it is.
        self._temporary = None if version == "editable" else tempfile.mkdtemp()
        out = pathlib.Path(self._temporary or package)
        build_data["dependencies"] += generate(protos, out)
        if self._temporary:
            build_data["force_include"][str(out)] = "epo_client/_proto"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._temporary:
            shutil.rmtree(self._temporary)

    def _protos(self) -> pathlib.Path:
        for folder in (pathlib.Path(self.root, "proto"), pathlib.Path(self.root, "..", "..", "proto")):
            if (folder / "epo/v1/service.proto").is_file():
                return folder.resolve()
        raise FileNotFoundError(f"proto/epo/v1 is neither in {self.root} nor two folders above: build from a clone or from an sdist")


def generate(protos: pathlib.Path, out: pathlib.Path) -> list[str]:
    """Generates modules and their types into `out` and returns what they need to be installed."""
    import google.rpc.status_pb2
    import grpc_tools
    from grpc_tools import protoc

    names = sorted(str(path.relative_to(protos)) for path in protos.glob("epo/v1/*.proto"))
    # google/rpc/*.proto come with googleapis-common-protos, google/protobuf/*.proto with grpcio-tools.
    common = pathlib.Path(google.rpc.status_pb2.__file__).parents[2]
    includes = [protos, common, pathlib.Path(grpc_tools.__file__).parent / "_proto"]
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        if protoc.main(["protoc", *(f"-I{path}" for path in includes), *outputs, *names]) != 0:
            sys.exit(f"protoc failed on {', '.join(names)}")
        out.mkdir(parents=True)
        for path in sorted(pathlib.Path(folder, "epo/v1").iterdir()):
            # The modules import each other by the protos' folders, which are no package of ours.
            text = re.sub(r"^from epo\.v1 import ", "from epo_client._proto import ", path.read_text(), flags=re.MULTILINE)
            (out / path.name).write_text(text)
    (out / "__init__.py").write_text("")
    version = re.search(r"^# Protobuf Python Version: (\S+)$", (out / "service_pb2.py").read_text(), re.MULTILINE)
    assert version, "the generated modules do not say which protobuf they need"
    return [f"grpcio>={metadata.version('grpcio-tools')}", f"protobuf>={version[1]}"]
