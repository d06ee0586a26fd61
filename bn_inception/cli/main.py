"""Dispatch: one command, its help, and one place that turns errors into lines and statuses."""

import difflib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bn_inception.cli.streams import losable_streams
from bn_inception.errors import AgreedError, UserError
from bn_inception.quoting import printable

DEBUG = "BN_INCEPTION_DEBUG"
BAD_INPUT, OUTPUT_LOST = 2, 1


@dataclass(frozen=True)
class Command:
    """One command: the module with its `run(arguments) -> status`, and its help."""

    module: str
    summary: str
    usage: str


COMMANDS = {
    "train": Command(
        "bn_inception.cli.train",
        "train one recipe; record steps, accuracy and milestones in outputs/<run.name>",
        """\
usage: bn-inception train [recipe=NAME] [scale=NAME] [data=NAME] [key=value ...]

  recipe=   inception | bn_baseline | bn_x5 | bn_x30 | bn_x5_sigmoid |
            inception_x5 | inception_sigmoid          (default bn_x5)
  scale=    paper | small | cpu | demo                (default demo)
  batch=    x1 (32 images) | x8 (256, eight times the rate)    (default x1)
  data=     imagenet | folder | tiny_imagenet | shards | synthetic (default synthetic)

  run.name= run.root=outputs run.seed=0 run.resume=false|true|auto
  train.steps= train.evaluate_every= train.checkpoint_every=   (2000 or '8 epochs')
  train.checkpoint_minutes=15    (a checkpoint when either is due; null: by steps only)
  optimizer.learning_rate= optimizer.warmup= milestones=[0.2,0.3]
  batch.global=32 batch.norm_group=32 batch.synchronized= batch.rate_factor=
  data.root= data.workers= data.on_error=fail|skip data.first_classes= data.backend=fast|pillow
  data.cache=   (data=shards takes data.root=https://..., s3://...)
  network.pool_projection=96|128 network.first_convolution=separable|full
  network.auxiliary_head= network.convolution_bias= network.width=
  machine=  auto | cpu | gpu, or piece by piece                (default auto):
  machine.device=auto|cpu|cuda machine.threads= machine.timeout=600
  machine.precision=fp32|tf32|bf16 machine.compile= machine.cuda_graphs=
  machine.channels_last= machine.fused_update= machine.deterministic=

  --cfg job   print the resolved configuration and stop

examples:
  bn-inception train recipe=bn_x30 scale=paper data=imagenet data.root=/data/imagenet
  torchrun --nproc-per-node 4 scripts/train.py recipe=bn_x30 scale=paper data=imagenet ...
  bn-inception train recipe=inception scale=cpu data=tiny_imagenet data.root=tiny
  bn-inception train recipe=inception scale=cpu run.resume=true""",
    ),
    "evaluate": Command(
        "bn_inception.cli.evaluate",
        "top-1 and top-5 error of a run or checkpoint with 1, 10 or 144 crops; saves predictions",
        """\
usage: bn-inception evaluate run=FOLDER [crops=single|10|144] [key=value ...]

  run=          run folder; its own data are read unless data= or data.KEY= is given
  checkpoint=   FILE.pt instead of the run's own
  which=        best | last checkpoint of the run                  (default best)
  crops=        single | 10 | 144 (GN section 7)                    (default single)
  statistics=   running | population (BN Algorithm 2) | both    (default population)
  output=       FILE.npz  (default RUN/evaluation/CROPS-STATISTICS.npz); errors, intervals and
                accuracy by crops are written beside it as .json, errors by class as .classes.csv

  evaluate.batch=64 evaluate.fold=true|false evaluate.population_batches=N
  evaluate.precision=fp32|tf32|bf16            (predictions in bf16 end in -bf16.npz)
  data= data.root= data.workers= data.first_classes= data.backend=
  machine.device=auto|cpu|cuda machine.threads=

  --cfg job   print the resolved configuration and stop

examples:
  bn-inception evaluate run=outputs/bn_x30-paper-imagenet-seed0 crops=144 statistics=both
  bn-inception evaluate checkpoint=best.pt data=folder data.root=IMAGES output=best.npz""",
    ),
    "verify-resume": Command(
        "bn_inception.cli.verify_resume",
        "check that a killed and resumed run equals an undisturbed one on this machine",
        """\
usage: bn-inception verify-resume [key=value ...]

Takes what train takes; 24 short steps unless overridden. Trains once undisturbed and once killed
and resumed with another number of workers, then compares every record and the final weights bit for
bit. Where the mini-batch can be divided (and on CUDA two GPUs are there), the killed run is resumed
by two processes as well, and its first loss compared within a stated tolerance.
Exit status 0: equal; 1: different, with the first step that differs.

  --cfg job   print the resolved configuration and stop

example:
  bn-inception verify-resume recipe=bn_x30 scale=cpu data=folder data.root=photos""",
    ),
    "plan": Command(
        "bn_inception.cli.plan",
        "hours, GPU-hours, memory and disk of runs that have not been made",
        """\
usage: bn-inception plan [recipe=NAME] [scale=paper] [batch=x8] [plan.KEY=value ...]

  recipe=   one run; otherwise Figure 3, both controls and the ensemble, or plan.recipes=[A,B]
  scale=    as for train                                            (default paper)
  data= data.root=   the images: their number, size and the speed of loading them
                     (default: ImageNet's numbers; loading is left out)

  plan.processes=    GPUs; plan.workers= processes that read images
  plan.step_images_per_second=          of one GPU; otherwise measured here, in a minute or two
  plan.worker_images_per_second=        of one worker; otherwise measured here on the data
  plan.exchange_gigabytes_per_second=   of a GPU's link, and plan.exchange_microseconds=;
                                        measured where this runs under torchrun
  plan.steps=5       updates and mini-batches that are measured
  output=            FILE.json for the rows

  --cfg job   print the resolved configuration and stop

The lines below the table say what each figure assumes.

examples:
  bn-inception plan plan.step_images_per_second=2500 plan.worker_images_per_second=400
  torchrun --nproc-per-node 8 -m bn_inception plan batch=x8 data=imagenet data.root=IMAGENET""",
    ),
    "prepare": Command(
        "bn_inception.cli.prepare",
        "make shards of a data set as it was downloaded: folders, ILSVRC archives, parquet",
        """\
usage: bn-inception prepare source=FOLDER target=FOLDER [key=value ...]

  source=         a folder with one of
                    train/<class>/<image> and val/<class>/<image> (or one of the two)
                    ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar, ILSVRC2012_devkit_t12.tar.gz
                    the train-*.parquet and validation-*.parquet of imagenet-1k
  target=         folder for the shards; read them with data=shards data.root=TARGET

  shorter_side=   encode images again whose shorter side is longer   (default null: keep all bytes)
  quality=        JPEG quality of those                              (default 90)
  shard_size=1251 workers=   (default all cores)

A prepare that was stopped goes on where it was when called again; called on finished shards it
compares them with their checksums and makes damaged ones again.

  --cfg job   print the resolved configuration and stop

examples:
  bn-inception prepare source=/downloads/ILSVRC2012 target=/data/imagenet-shards
  bn-inception prepare source=/data/imagenet target=/data/imagenet-352 shorter_side=352""",
    ),
    "audit": Command(
        "bn_inception.cli.audit",
        "read every image of a data set: counts, odd and unreadable files, duplicates",
        """\
usage: bn-inception audit data.root=FOLDER [data=NAME] [output=FILE.json]

  data=     imagenet | folder | tiny_imagenet | shards | synthetic   (default folder);
            imagenet compares counts and classes with ImageNet's; shards their checksums, and
            the counts too if their classes are 1,000 wnids
  output=   also write everything, all names included, as JSON

  data.workers= (default all cores)  data.first_classes=  data.cache= (of data=synthetic)

Exit status: 0 for a sound data set; 1 if images cannot be read, shards differ from their
checksums, or counts or classes are not ImageNet's; 2 if the data set cannot be opened. Odd images
that are read correctly, and images in train and val both, are named but do not change it.

  --cfg job   print the resolved configuration and stop

example:
  bn-inception audit data=imagenet data.root=/data/imagenet output=audit.json""",
    ),
    "benchmark": Command(
        "bn_inception.cli.benchmark",
        "speeds on this machine, as ratios in one run: the input pipeline, the training step",
        """\
usage: bn-inception benchmark input data.root=FOLDER [data=NAME] [output=FILE.json] [key=value ...]
       bn-inception benchmark step [output=FILE.json] [key=value ...]

input: images/s by number of workers of this package's loader and of torchvision's reference recipe,
on the same images of the data set; then what training at a given rate needs, and which side will
wait.

  data=         imagenet | folder | tiny_imagenet | shards | synthetic   (default folder)
  output=       also write everything as JSON

  benchmark.images=1024 benchmark.rounds=5 benchmark.workers=[0,1,4] (default 0, 1, 2, 4 ... cores)
  benchmark.image_size=224 benchmark.device=auto|cpu|cuda (of our distortion)
  benchmark.step_images_per_second=   rate of training without input
  data.first_classes= data.on_error=fail|skip data.cache=

step: ms an update of torchvision's plain loop, of ours with each piece turned on in turn, of our
step alone and in the whole loop, fed from the loader (with data=); and what population statistics
cost.

  recipe= scale=paper machine=auto|cpu|gpu machine.KEY= network.KEY= data= data.root=
  data.workers= data.first_classes= data.on_error=fail|skip data.backend=fast|pillow
  benchmark.batches=[32,256] benchmark.steps= benchmark.rounds=5
  output=       also write everything as JSON

  --cfg job   print the resolved configuration and stop

examples:
  bn-inception benchmark input data=imagenet data.root=/data/imagenet output=input.json
  bn-inception benchmark step output=step.json""",
    ),
    "mnist": Command(
        "bn_inception.cli.mnist",
        "BN Figure 1 at its own size: a sigmoid network on MNIST, without and with BN",
        """\
usage: bn-inception mnist [root=FOLDER] [key=value ...]

  root=         folder with MNIST's four files   (default ~/.cache/bn-inception, downloaded there)
  output=       folder for figure1.png, figure1.svg and figure1.json (default outputs/mnist)
  seeds=[0]     one training of each network a seed, about a minute each
  steps=50000 evaluate_every=500 threads=1
  learning_rate.plain= learning_rate.bn= deviation.plain= deviation.bn=   (docs/mnist.md)

  --cfg job   print the resolved configuration and stop

example:
  bn-inception mnist seeds=[0,1,2,3,4]""",
    ),
    "compare": Command(
        "bn_inception.cli.compare",
        "the paper's Figures 2, 3 and 4 for the runs you have made",
        """\
usage: bn-inception compare RUN_FOLDER ... [ENSEMBLE.json ...] [baseline=inception] [output=FOLDER]

  baseline=   recipe or run name whose plateau less a point is the target
  output=     also write report.html (one page to mail), comparison.md, comparison.json,
              figure2.png and figure2.svg there

  --cfg job   print the resolved configuration and stop

example:
  bn-inception compare outputs/inception-cpu-* outputs/bn_x5-cpu-* output=results/mine""",
    ),
    "claims": Command(
        "bn_inception.cli.claims",
        "judge the paper's nine statements by the runs you have made",
        """\
usage: bn-inception claims RUN_FOLDER ... [FILE.json ...] [require=[1,2]] [output=FOLDER]

  FILE.json   evaluation of an ensemble (statement 9), stability edge (statement 5)

  require=    statements (1 to 9) that must hold; else the exit status is 1
  output=     also write claims.md and claims.json there

  --cfg job   print the resolved configuration and stop

Each statement holds, does not hold, is undecided (the interval covers the limit) or not tested;
then the commands that would help are printed. The rules: docs/statements.md. Exit status: 0; 1
where a required statement is anything but "holds"; 2 for bad input. Files that end in .npz are
passed over, so that outputs/* can be given.

example:
  bn-inception claims outputs/* require=[1,2] output=results/mine""",
    ),
    "ensemble": Command(
        "bn_inception.cli.ensemble",
        "the mean of saved predictions: errors of the ensemble and of every subset of it",
        """\
usage: bn-inception ensemble PREDICTIONS.npz|RUN_FOLDER ... [output=FILE.npz] [key=value ...]

  Two to ten members, evaluated on the same images. The networks are not needed.

  crops= statistics=   which predictions of a run folder are meant, where it has several
  output=              also write the mean probabilities there, and the errors beside them as .json

  --cfg job   print the resolved configuration and stop

examples:
  bn-inception train recipe=ensemble/1 scale=paper data=imagenet data.root=IMAGENET run.seed=1
  bn-inception evaluate run=outputs/ensemble_1-paper-imagenet-seed1 crops=144
  bn-inception ensemble outputs/ensemble_*-paper-imagenet-* crops=144 output=six.npz""",
    ),
    "difference": Command(
        "bn_inception.cli.difference",
        "whether two predictions of the same images differ: McNemar's test, paired bootstrap",
        """\
usage: bn-inception difference PREDICTIONS.npz|RUN_FOLDER PREDICTIONS.npz|RUN_FOLDER [key=value ...]

  crops= statistics=   which predictions of a run folder are meant, where it has several
  seed=0               of the bootstrap
  output=              FILE.json for the same numbers

  --cfg job   print the resolved configuration and stop

examples:
  bn-inception difference outputs/bn_x5/evaluation/single-population.npz outputs/bn_x30 crops=single
  bn-inception difference RUN/evaluation/single-population.npz RUN/evaluation/144-population.npz""",
    ),
    "submission": Command(
        "bn_inception.cli.submission",
        "the ILSVRC test-server file for a folder of unlabelled images, by one or more networks",
        """\
usage: bn-inception submission run=FOLDER [FOLDER ...] images=FOLDER devkit=FILE output=FILE

  run=          run folder; the probabilities of several folders are averaged
  checkpoint=   FILE.pt instead of a run's own; which=best|last checkpoint of the runs
  images=       folder of images; lines follow the alphabetical order of the file names
  devkit=       text file, one wnid a line in the order of ILSVRC2012_ID, which is not the
                alphabetical one; from the development kit, with SciPy:
                python -c "import scipy.io as s; print(*s.loadmat('meta.mat', squeeze_me=True)\\
                ['synsets']['WNID'][:1000], sep='\\n')" > synsets.txt
  crops=        single | 10 | 144                                  (default 144)
  output=       the file: five class ids a line, the likeliest first; its form is checked

  batch_size=64 workers= machine.device=auto|cpu|cuda machine.threads=
  Batch Normalization uses the running statistics of training.

  --cfg job   print the resolved configuration and stop

example:
  bn-inception submission outputs/ensemble_* images=test devkit=synsets.txt output=six.txt""",
    ),
    "import-weights": Command(
        "bn_inception.cli.import_weights",
        "published BN-Inception weights into a run folder that evaluate takes",
        """\
usage: bn-inception import-weights FILE [output=outputs/NAME] [classes=FILE|FOLDER]

  FILE       .safetensors, or a .pth that holds nothing but tensors, in the layout of Cadene's
             bninception.py: full 7x7, pool projections of 128, biases, BGR of 0 to 255 less a mean
  output=    run folder to make                            (default outputs/<name of the file>)
  classes=   class names in the order of the outputs: a text file, one a line, or a folder of class
             folders such as IMAGENET/val

  --cfg job   print the resolved configuration and stop

example:
  bn-inception import-weights bn_inception.pth classes=IMAGENET/val
  bn-inception evaluate run=outputs/bn_inception data=imagenet data.root=IMAGENET""",
    ),
    "export": Command(
        "bn_inception.cli.export",
        "a trained network as safetensors or ONNX, for inference",
        """\
usage: bn-inception export run=FOLDER output=FOLDER [format=safetensors|onnx]

  run=          run folder; which=best|last of its checkpoints     (default best)
  checkpoint=   FILE.pt instead
  output=       folder for config.json and model.safetensors or model.onnx, without auxiliary head
  format=       safetensors | onnx (compared with torch through onnxruntime; needs
                pip install 'bn-inception[export]')                (default safetensors)

  --cfg job   print the resolved configuration and stop

example:
  bn-inception export run=outputs/bn_x30-paper-imagenet-seed0 output=bn_x30
  python -c "from bn_inception import load_network; print(load_network('bn_x30'))\"""",
    ),
}


def overview() -> str:
    """Return the text of `bn-inception --help`."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {entry.summary}" for name, entry in COMMANDS.items())
    return (
        "usage: bn-inception COMMAND [key=value ...]\n\n"
        "Reproduces Batch Normalization (Ioffe and Szegedy, 2015).\n\n"
        f"commands:\n{rows}\n\n"
        "bn-inception COMMAND --help shows a command's keys and examples."
    )


def dispatch(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status: 0, or 2 for bad input."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return 0 if arguments else BAD_INPUT
    name, *rest = arguments
    if name == "--version":
        from bn_inception import __version__

        print(f"bn-inception {__version__}")
        return 0
    command = COMMANDS.get(name)
    if command is None:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{name}: no such command; choose from {', '.join(COMMANDS)}{hint}")
    if "-h" in rest or "--help" in rest:
        print(command.usage)
        return 0
    status: int = importlib.import_module(command.module).run(rest)
    return status


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As stderr does: a file's name that the terminal's encoding lacks is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if arguments is None else arguments
    with losable_streams() as output:
        status = _status(arguments)
        output.flush()
        if output.error is not None:
            print(
                f"bn-inception: standard output could not be written ({output.error.strerror}); "
                "what the command writes into files is there",
                file=sys.stderr,
            )
            # A run's result is its folder, and what restarts failed runs must not restart it.
            if status == 0 and arguments[0] != "train":
                status = OUTPUT_LOST
    sys.exit(status)


def _status(arguments: Sequence[str]) -> int:
    """The exit status of a command; its errors become lines."""
    try:
        return dispatch(arguments)
    except UserError as error:
        if os.environ.get(DEBUG):
            raise
        if not isinstance(error, AgreedError) or os.environ.get("RANK", "0") == "0":
            line = printable(" ".join(str(error).split()))
            print(f"bn-inception: {line}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return 130
