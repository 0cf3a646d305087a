"""Models that would run code, opened by TensorFlow: nothing runs unless that is allowed.

What they would run makes a canary, and does where it is allowed.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import SUPPORT

pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

import hostile_files as files

from torchfgsm import cli
from torchfgsm.converters import ConversionError, load
from torchfgsm.converters.tensorflow_side.keras_names import CLASSES, FUNCTIONS
from torchfgsm.originals.environment import EnvironmentUnavailable
from torchfgsm.originals.process import Worker

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("one_thread")]
SCRIPT = SUPPORT / "hostile_models_worker.py"
FROZEN: dict[str, Any] = {"input_names": ["x:0"], "output_names": ["Identity:0"]}
RUNNING = """
Abort BatchFunction CollectiveReduceV2 CreateSummaryFileWriter DataServiceDatasetV2 DebugIdentity
DebugIdentityV2 DebugNanCount EagerPyFunc FileSystemSetConfiguration FixedLengthRecordDatasetV2
GenerateVocabRemapping GeneratorDataset ImmutableConst InitializeTableFromTextFileV2
IteratorV2 LMDBReader LoadAndRemapMatrix LoadDataset MakeIterator MatchingFiles MergeV2Checkpoints
NoSuchOperation OneShotIterator PrintV2 PyFunc PyFuncStateless ReadFile ReaderReadV2 RestoreV2
RpcCall RpcClient RpcServer SaveDatasetV2 SaveSlices SaveV2 TFRecordDataset TFRecordReaderV2
TextLineDataset TextLineReaderV2 WholeFileReaderV2 WriteFile WriteSummary XlaCallModule _Recv _Send
"""
COMPUTING = """
AddV2 Assert AssignVariableOp CheckNumerics Const Conv2D DecodeJpeg Einsum FusedBatchNormV3 GatherV2
HashTableV2 Identity IteratorGetNext LookupTableFindV2 MatMul NoOp RandomUniform ReadVariableOp
ResizeBilinear ScatterNd StatefulPartitionedCall StatelessIf StatelessRandomUniformV2 StringJoin
TensorListStack TensorScatterUpdate VarHandleOp While
"""
# Run code, read other files, or stand for nothing that a configuration could build.
REFUSED = {
    "FlaxLayer",
    "JaxLayer",
    "Lambda",
    "Layer",
    "TFSMLayer",
    "TorchModuleWrapper",
    "Wrapper",
}


class Hostile:
    """One TensorFlow process, and the files that it wrote."""

    def __init__(self, environment: str, folder: Path) -> None:
        self.keras = 2 if environment == "keras-2" else 3
        self.worker = Worker(environment, SCRIPT)
        self.folder, self.canary = folder, folder / "canary"

    def build(self, kind: str, suffix: str) -> Path:
        path = self.folder / f"{kind}{suffix}"
        if not path.exists():
            canary = str(self.canary)
            self.worker.call("build", kind=kind, canary=canary, path=str(path))
        return path

    def load(self, path: Path, **options: Any) -> Any:
        names = FROZEN if path.suffix == ".pb" else {}
        return load(path, worker=self.worker, **names, **options)

    def refusal(self, path: Path) -> str:
        """What is said of a file, which is one line, without the canary."""
        before = set(self.folder.rglob("*"))
        with pytest.raises(ConversionError) as caught:
            self.load(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
        assert set(self.folder.rglob("*")) == before
        assert not self.canary.exists()
        return str(caught.value)

    def with_config(self, config: Any, name: str) -> Path:
        """The plain model as a .keras file with another configuration."""
        with zipfile.ZipFile(self.build("plain", ".keras")) as archive:
            members = {m.filename: archive.read(m) for m in archive.infolist()}
        members["config.json"] = json.dumps(config).encode()
        return files.archive(self.folder / f"{name}.keras", members)

    def config(self) -> Any:
        with zipfile.ZipFile(self.build("plain", ".keras")) as archive:
            return json.loads(archive.read("config.json"))


@pytest.fixture(scope="module", params=["keras-2", "keras-3"])
def hostile(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Hostile]:
    try:
        found = Hostile(request.param, tmp_path_factory.mktemp("hostile"))
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))
    yield found
    found.worker.close()


@pytest.fixture(autouse=True)
def _no_canary(hostile: Hostile) -> Iterator[None]:
    hostile.canary.unlink(missing_ok=True)
    yield
    hostile.canary.unlink(missing_ok=True)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("kind", ["lambda", "lambda in a model", "lambda in a wrapper"])
def test_code_in_keras_files(hostile: Hostile, kind: str, suffix: str) -> None:
    path = hostile.build(kind, suffix)
    said = hostile.refusal(path)
    assert "layer 'code' holds Python code (a Lambda)" in said
    assert "--allow-unsafe" in said
    hostile.load(path, allow_unsafe=True, verify=False)
    assert hostile.canary.exists()


def test_code_in_a_saved_model_of_keras_2_is_left_alone(hostile: Hostile) -> None:
    """Its graph holds what the code computes."""
    if hostile.keras == 3:
        pytest.skip("Keras 3 writes no such folders")
    path = hostile.build("lambda", "")
    assert hostile.load(path).annotation.only_inference
    assert not hostile.canary.exists()
    hostile.load(path, allow_unsafe=True, verify=False)
    assert hostile.canary.exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        # Spelled in another way the name is seen where Keras would see it.
        ('"class_name": "Dense"', '"class_name":"Lambda"', "holds Python code (a Lambda)"),
        ('"class_name": "Dense"', '"class_name": "ClassMethod"', "class 'ClassMethod'"),
        ('"class_name": "Dense"', '"class_name": "TensorFlowOpLayer"', "'TensorFlowOpLayer'"),
        ('"class_name": "Zeros"', '"module": "os", "class_name": "Zeros"', "(module 'os')"),
        ('"class_name": "Dense"', '"class_name": "NobodysLayer"', None),
    ],
)
def test_configurations_in_saved_models_of_keras_2(
    hostile: Hostile, old: str, new: str, said: str | None
) -> None:
    if hostile.keras == 3:
        pytest.skip("Keras 3 writes no such folders")
    path = hostile.folder / "altered"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(hostile.build("plain", ""), path)
    before = (path / "keras_metadata.pb").read_bytes()
    hostile.worker.call("rename", folder=str(path), old=old, new=new)
    assert (path / "keras_metadata.pb").read_bytes() != before
    if said is None:  # Keras takes the layer's graph
        assert hostile.load(path).verification
    else:
        assert said in hostile.refusal(path)


@pytest.mark.keras_3_suffices
@pytest.mark.parametrize(
    ("kind", "suffix", "operation", "runs"),
    [
        ("writing", "", "WriteFile", True),
        ("writing", ".pb", "WriteFile", True),
        ("writing", ".tflite", "FlexWriteFile", False),
        ("filling", "", "WriteFile", True),
        ("in a branch", "", "WriteFile", True),
        ("in a branch", ".pb", "WriteFile", True),
        ("of Python", "", "EagerPyFunc", False),
        ("of Python", ".pb", "EagerPyFunc", False),
        ("reading", "", "ReadFile", False),
        ("reading", ".pb", "ReadFile", False),
        ("reading", ".tflite", "FlexReadFile", False),
    ],
)
def test_graphs_that_do_more_than_compute(
    hostile: Hostile, kind: str, suffix: str, operation: str, runs: bool
) -> None:
    path = hostile.build(kind, suffix)
    said = hostile.refusal(path)
    assert operation in said
    assert "--allow-unsafe" in said
    if runs:  # others have no counterpart in ONNX
        hostile.load(path, allow_unsafe=True)
        assert hostile.canary.exists()


def test_saved_models_of_tensorflow_1(hostile: Hostile) -> None:
    assert hostile.load(hostile.build("session", "")).verification
    assert "WriteFile" in hostile.refusal(hostile.build("session called", ""))
    path = hostile.build("session loaded", "")
    assert "WriteFile" in hostile.refusal(path)
    hostile.load(path, allow_unsafe=True, verify=False)
    assert hostile.canary.exists()


def test_operations_by_their_definition(hostile: Hostile) -> None:
    found = hostile.worker.call("trusted", operations=[*RUNNING.split(), *COMPUTING.split()]).values
    assert {name for name, trusted in found.items() if trusted} == set(COMPUTING.split())


def test_the_list_of_layers_is_kept(hostile: Hostile) -> None:
    """A layer that is new in Keras is entered there, or here."""
    names = hostile.worker.call("names").values
    assert set(names["layers"]) - CLASSES <= REFUSED
    assert not CLASSES & REFUSED
    assert set(names["functions"]) - FUNCTIONS <= {"get", "serialize", "deserialize"}


def test_modules_are_not_imported_by_a_configuration(hostile: Hostile) -> None:
    module = hostile.folder / "canary_module.py"
    module.write_text(f"open({str(hostile.canary)!r}, 'w').close()\n")
    hostile.worker.call("search", folder=str(hostile.folder))
    config = {"module": "canary_module", "class_name": "Model", "config": {"name": "mine"}}
    path = hostile.with_config({**config, "registered_name": None}, "importing")
    said = hostile.refusal(path)
    assert "'Model', which Keras does not know (module 'canary_module')" in said
    with pytest.raises(ConversionError):
        hostile.load(path, allow_unsafe=True)
    # Keras 3 has mended it.
    assert hostile.canary.exists() == (hostile.keras == 2)


def test_configurations_in_h5_files(hostile: Hostile) -> None:
    plain, out = hostile.build("plain", ".h5"), hostile.folder / "altered.h5"
    config = hostile.config()
    dense = config["config"]["layers"][-1]["config"]
    function = {"module": "os", "class_name": "function", "config": "system"}
    dense["activation"] = {**function, "registered_name": "function"}
    texts = {json.dumps(config): "function 'system'", "{": "expected a Keras model: ", "": "Keras"}
    for text, said in texts.items():
        hostile.worker.call("alter", path=str(plain), out=str(out), config=text)
        assert said in hostile.refusal(out)


@pytest.mark.parametrize("where", ["file", "archive"])
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"link": "secret.h5"}, "'/elsewhere' is a link elsewhere"),
        ({"data": "secret.bin"}, "'/elsewhere' lies in other files"),
        ({"declared": 1 << 40}, "own directory says"),
    ],
)
def test_weights_in_other_files(hostile: Hostile, what: Any, said: str, where: str) -> None:
    out = hostile.folder / "altered.h5"
    hostile.worker.call("alter", path=str(hostile.build("plain", ".h5")), out=str(out), **what)
    path = out
    if where == "archive":
        path = hostile.folder / "altered.keras"
        with zipfile.ZipFile(hostile.build("plain", ".keras")) as archive:
            members = {m.filename: archive.read(m) for m in archive.infolist()}
        files.archive(path, {**members, "model.weights.h5": out.read_bytes()})
    assert said in hostile.refusal(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".pb", ".tflite", ""])
def test_broken_files(hostile: Hostile, suffix: str) -> None:
    kind = "plain" if suffix in (".keras", ".h5") else "plain of functions"
    good = hostile.build(kind, suffix)
    path = hostile.folder / f"broken{suffix}"
    file = path / "saved_model.pb" if suffix == "" else path
    file.parent.mkdir(exist_ok=True)
    content = (good / "saved_model.pb" if suffix == "" else good).read_bytes()
    for broken in (b"", content[:20], content[: len(content) // 2], b"no model" * 100):
        file.write_bytes(broken)
        hostile.refusal(path)


def test_the_commands_refuse_and_name_the_flag(
    hostile: Hostile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The only test here that starts TensorFlow as a user's commands do."""
    if hostile.keras == 2:
        pytest.skip("one start of TensorFlow is enough")
    path = hostile.build("writing", "")
    out = tmp_path / "out.onnx"
    assert cli.main(["convert", str(path), "-o", str(out)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    assert "WriteFile" in shown.err.splitlines()[-1]
    assert "--allow-unsafe" in shown.err.splitlines()[-1]
    assert not hostile.canary.exists()
    assert list(tmp_path.iterdir()) == []
