"""`python -m ltl.run --help`: how to call it, the groups with their options, and the keys with their units or reasons.

Hydra's own page takes a second to list the groups, and shows no comments.
"""

import textwrap
from pathlib import Path

_HEAD = """\
ltl, the Lottery Ticket Lab: experiments on the lottery ticket hypothesis.

  python -m ltl.run                                       LeNet-300-100 on the embedded digits, a minute or two
  python -m ltl.run pruner=imp_late model=resnet20 dataset=cifar10
  python -m ltl.run experiment=frankle2019_lenet          a published experiment (add debug=fast to try it)
  python -m ltl.run -m seed=0,1,2 trials=1 pruner=imp,random    a sweep, one run each
  python -m ltl.run ticket=FOLDER@7 dataset=mnist         train a ticket again under other settings
  python -m ltl.run resume=FOLDER pruner.rounds=20        go on with a run or a sweep, or extend it
  python -m ltl.run plan=true experiment=frankle2019_lenet    what it would cost: trainings, steps, hours
  python -m ltl.run --cfg job model=vgg19                 show the configuration and run nothing
  python -m ltl.report FOLDER…                            tables, figures and one HTML page
  python -m ltl.ticket show FILE                          look at a ticket; also diff, export, import
  python -m ltl.instability FOLDER…                       error between copies of a network (ends=true)
  python -m ltl.subset_sum FOLDER                         a trained network as subset sums of a random one (ends=true)
  python -m ltl.dashboard TEAM/PROJECT                    publish a dashboard of the runs at W&B (logger=wandb)

Groups (group=option):
"""
_KEYS = "\nKeys (key=value); `--cfg job` shows those of the groups too, --hydra-help Hydra's own flags:\n"


def text(conf: Path) -> str:
    """Return the page for the configuration folder `conf`."""
    groups = {group.name: sorted(file.stem for file in group.glob("*.yaml")) for group in sorted(conf.iterdir())}
    launchers = "hydra/launcher: basic, joblib, submitit_local, submitit_slurm (sweeps; all but basic need ltl[sweep])"
    lines = [f"{group}: {', '.join(options)}" for group, options in groups.items() if options]
    wrapped = [
        textwrap.fill(line, 116, initial_indent="  ", subsequent_indent="      ") for line in [*lines, launchers]
    ]
    config = (conf / "config.yaml").read_text()
    keys = config[config.index("\nseed:") : config.index("\nhydra:")]
    return _HEAD + "\n".join(wrapped) + "\n" + _KEYS + textwrap.indent(keys, "  ")
