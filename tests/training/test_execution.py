"""The pieces of the fast step: what they may change, and what must stay."""

import copy
import json

import pytest
import torch
import torch.distributed as dist
from small_runs import TINY
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from training.conftest import network_of

from bn_inception import UserError
from bn_inception.cli.main import dispatch
from bn_inception.data import to_input
from bn_inception.network import Precision, set_precision, set_statistics
from bn_inception.network import precision as formats
from bn_inception.training import machine
from bn_inception.training.learner import build_optimizer
from bn_inception.training.local_batch import LocalBatch
from bn_inception.training.machine import Execution, Machine, resolve, set_deterministic
from bn_inception.training.settings import Device, MachineConfig, OptimizerConfig
from bn_inception.training.step import TrainingMeter, train_step

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
TRACED = ("inception_sigmoid", "bn_baseline", "ensemble/6")
"""Recipes with all the kinds of layers there are: tracing one takes seconds."""
CONFIG = OptimizerConfig(0.02, 0.9, 1e-4, 1.0, 1)
READS = {"_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "_to_cpu"}
"""Operations that a GPU's host would wait in."""


pytestmark = pytest.mark.own_process


@pytest.fixture(autouse=True)
def one_thread_and_a_fresh_compiler(monkeypatch):
    """Traced in full, run eagerly: what would be compiled is checked and no compiler is needed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch._dynamo.reset()
    monkeypatch.setattr(machine, "BACKEND", "eager")
    yield
    torch.set_num_threads(threads)


def batch(number=0, images=8):
    """Images, factors of the reduced distortion, labels."""
    generator = torch.Generator().manual_seed(number)
    pixels = torch.randint(0, 256, (images, 3, 16, 16), generator=generator, dtype=torch.uint8)
    factors = torch.rand(images, 3, generator=generator)
    return pixels, factors, torch.randint(0, 4, (images,), generator=generator)


def train(network, chosen, steps=3, images=8, rate=0.02):
    """Some updates as the loop makes them, in the network's floating-point type."""
    made = Execution(chosen, CPU)
    optimizer = build_optimizer(network, CONFIG)
    results = []
    for step in range(steps):
        pixels, factors, labels = batch(step, images)
        torch.manual_seed(step)
        inputs = made.to_input(pixels, factors).to(next(network.parameters()).dtype)
        results.append(train_step(network, optimizer, inputs, labels, rate, forward=made.forward))
    return results


def assert_same(one, other, **tolerance):
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], **tolerance, msg=name)


class Watch(TorchDispatchMode):
    """Fails at an operation that reads a value back; counts all of them."""

    def __init__(self):
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.operations += 1
        assert function.overloadpacket.__name__ not in READS, f"{function} waits for the device"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("recipe", TRACED)
def test_forward_pass_and_loss_are_one_graph_that_is_made_once(recipe):
    """fullgraph=True fails at a graph break; the counter at a second compilation.

    Two graphs of one function may sum in two orders: in float64 that stays far below 1e-9.
    """
    compiled, eager = network_of(recipe).double(), network_of(recipe).double()
    counters = torch._dynamo.utils.counters
    counters.clear()
    results = train(compiled, Machine(compile=True))
    # Evaluation in between is of another mode and size, and does not touch what is compiled.
    with torch.no_grad():
        compiled.eval()(torch.zeros(3, 3, 16, 16, dtype=torch.float64))
        compiled.train()
    results += train(compiled, Machine(compile=False), steps=1)
    assert counters["stats"]["unique_graphs"] == 2  # forward pass with loss, and the augmentation
    assert not counters["graph_break"]
    expected = train(eager, Machine()) + train(eager, Machine(), steps=1)
    torch.testing.assert_close(
        torch.stack([result.loss for result in results]),
        torch.stack([result.loss for result in expected]),
        rtol=1e-9,
        atol=1e-9,
    )
    assert_same(compiled, eager, rtol=1e-9, atol=1e-9)


def test_bn_statistics_by_group_are_compiled_too():
    compiled, eager = network_of("bn_x5").double(), network_of("bn_x5").double()
    for network, on in ((compiled, True), (eager, False)):
        set_statistics(network, groups=2)
        train(network, Machine(compile=on))
    assert_same(compiled, eager, rtol=1e-9, atol=1e-9)


def test_under_the_wrapper_of_several_processes_the_network_is_compiled():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        network, alone = network_of("bn_x5"), network_of("bn_x5")
        made = Execution(Machine(compile=True, precision=Precision.bf16), CPU, processes=2)
        model = DistributedDataParallel(made.wrapped(network))
        optimizer = build_optimizer(network, CONFIG)
        counters = torch._dynamo.utils.counters
        counters.clear()
        for step in range(3):
            images, factors, labels = batch(step)
            inputs = made.to_input(images, factors)
            train_step(model, optimizer, inputs, labels, 0.02, forward=made.forward)
        assert not counters["graph_break"]
        assert counters["stats"]["unique_graphs"] >= 2
        train(alone, Machine(precision=Precision.bf16))
        assert_same(network, alone)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
def test_no_operation_of_a_step_reads_a_value_back(precision):
    network = network_of("bn_baseline")
    made = Execution(Machine(precision), CPU)
    optimizer = build_optimizer(network, CONFIG)
    meter = TrainingMeter(CPU, 8)
    with Watch() as watch:
        for step in range(1, 4):
            images, factors, labels = batch(step)
            inputs = made.to_input(images, factors)
            result = train_step(network, optimizer, inputs, labels, 0.02, forward=made.forward)
            meter.add(result, step)
        assert watch.operations > 500
        with pytest.raises(AssertionError, match="waits for the device"):
            float(result.loss)


@pytest.mark.parametrize("recipe", ["inception", "bn_baseline", "bn_x30", "ensemble/5"])
def test_bf16_keeps_weights_statistics_and_loss_in_float32(recipe):
    network, exact = network_of(recipe), network_of(recipe)
    seen: dict[str, torch.dtype] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(
                lambda module, inputs, output, name=name: seen.update({name: output.dtype})
            )
    results = train(network, Machine(precision=Precision.bf16), 8, images=32, rate=0.0002)
    expected = train(exact, Machine(), 8, images=32, rate=0.0002)
    assert seen.pop("classifier") == seen.pop("auxiliary.classifier") == torch.float32
    assert set(seen.values()) == {torch.bfloat16}
    tensors = [*network.parameters(), *network.buffers(), *(p.grad for p in network.parameters())]
    assert {t.dtype for t in tensors if t is not None and t.is_floating_point()} == {torch.float32}
    assert all(result.loss.dtype == torch.float32 for result in results)
    curve = torch.stack([result.loss for result in results])
    exact_curve = torch.stack([result.loss for result in expected])
    assert not torch.equal(curve, exact_curve)
    # bf16 has 8 bits: relative 0.004 a rounding.
    torch.testing.assert_close(curve, exact_curve, rtol=0.05, atol=0.05)


def test_a_loss_that_is_not_finite_leaves_weights_and_momenta():
    network = network_of("inception")
    optimizer = build_optimizer(network, CONFIG)
    images, _, labels = batch()
    good = to_input(images)
    bad = torch.full_like(good, torch.inf)
    assert not train_step(network, optimizer, bad, labels, 0.02).finite  # before any momentum
    assert train_step(network, optimizer, good, labels, 0.02).finite
    before = copy.deepcopy([network.state_dict(), optimizer.state_dict()])
    assert not train_step(network, optimizer, bad, labels, 0.02).finite
    torch.testing.assert_close([network.state_dict(), optimizer.state_dict()], before, rtol=0,
                               atol=0, equal_nan=False)  # fmt: skip
    assert train_step(network, optimizer, good, labels, 0.02).finite


def config(**given):
    return MachineConfig(device=Device.auto, threads=None, **given)


def test_deterministic_kernels_are_asked_for_and_only_then():
    try:
        set_deterministic(True)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        set_deterministic(False)
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


WHOLE = LocalBatch(images=32, group=32, groups=1, sharers=1)
SHARED = LocalBatch(images=16, group=32, groups=1, sharers=2)


def test_the_cpu_keeps_the_arithmetic_of_the_stored_curves_and_cuda_is_fast(monkeypatch):
    assert resolve(config(), CPU, WHOLE) == Machine(Precision.fp32, compile=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert resolve(config(), CUDA, WHOLE) == Machine(Precision.tf32, compile=False)
    assert resolve(config(compile=True), CUDA, WHOLE) == Machine(Precision.tf32, compile=True)
    assert resolve(config(compile=None), CUDA, WHOLE).compile is False  # as earlier runs were saved
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert resolve(config(), CUDA, WHOLE).precision is Precision.fp32


@pytest.mark.parametrize(("local", "named"), [(SHARED, "2 processes"), (WHOLE, "C\\+\\+ compiler")])
def test_what_a_machine_cannot_compile_is_refused(local, named, monkeypatch):
    monkeypatch.setattr(machine, "has_cpp_compiler", lambda: False)
    with pytest.raises(UserError, match=f"machine.compile: true, .*{named}"):
        resolve(config(compile=True), CPU, local)


def test_a_number_format_the_device_does_not_have_is_refused_or_said(monkeypatch):
    with pytest.raises(UserError, match=r"machine\.precision: tf32 .*fp32 or bf16"):
        set_precision(Precision.tf32, CPU, key="machine.precision")
    monkeypatch.setattr(formats, "_cpu_has_bfloat16", lambda: False)
    said = set_precision(Precision.bf16, CPU, key="machine.precision")
    assert said is not None and "slower" in said
    assert set_precision(Precision.fp32, CPU, key="machine.precision") is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "old")
    for refused in (Precision.bf16, Precision.tf32):
        with pytest.raises(UserError, match=r"machine\.precision: .*8\.0.*old"):
            set_precision(refused, CUDA, key="machine.precision")


@pytest.mark.filterwarnings("error")
def test_the_format_of_float32_products_is_set_without_a_warning(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        for chosen, on in ((Precision.tf32, True), (Precision.fp32, False)):
            set_precision(chosen, CUDA, key="machine.precision")
            # Read as torch's compiler reads them: a mixture of old and new settings raises here.
            assert torch.backends.cudnn.allow_tf32 is on
            assert torch.backends.cuda.matmul.allow_tf32 is on
            compiled = torch.compile(lambda x: x @ x, backend="aot_eager", fullgraph=True)
            assert float(compiled(torch.ones(2, 2)).sum()) == 8
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_the_record_holds_the_choice_and_a_run_goes_on_in_its_number_format(
    images, tmp_path, capsys
):
    given = ["train", *TINY, "train.steps=4", f"data.root={images}", f"run.root={tmp_path}"]
    given += ["run.name=run", "machine.precision=bf16", "machine.compile=true"]
    assert dispatch(given) == 0
    recorded = json.loads((tmp_path / "run" / "environment.json").read_text())["machine"]
    assert recorded == {
        "device": "cpu", "threads": 1, "precision": "bf16", "compile": True, "deterministic": False,
    }  # fmt: skip
    keys = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["network"]
    assert not [name for name in keys if "_orig_mod" in name or name.startswith("module")]
    longer = [*given, "train.steps=8", "run.resume=must"]
    with pytest.raises(UserError, match=r"started in bf16 and would go on in fp32"):
        dispatch([*longer, "machine.precision=fp32"])
    # Compilation may change, and what was saved does not bring it back.
    assert dispatch([*longer, "machine.compile=false"]) == 0
    resumed = json.loads((tmp_path / "run" / "environment.json").read_text())["resumed"]
    assert [entry["machine"]["compile"] for entry in resumed] == [False]
