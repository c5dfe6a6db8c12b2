"""Every method has words of its own, which say what its weights start from."""

from pathlib import Path

import pytest
from conftest import CONF, composed

from ltl.report.load import Run
from ltl.report.words import method_name, ticket_words

PRUNERS = sorted(path.stem for path in (CONF / "pruner").glob("*.yaml"))


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_has_words(name: str) -> None:
    """Not its bare name; what is neither rewound nor kept is said by the method itself."""
    run = Run(Path(name), composed(f"pruner={name}"), {}, [], [], [])
    words = ticket_words(run)
    assert method_name(run) in words
    assert method_name(run) != name or name in ("dense",)
    target = str(run.setting("pruner.survivors._target_")).rpartition(".")[2]
    scored = run.setting("pruner.scores.length") is not None
    assert words.startswith("supermask") is scored
    assert ("rewound to" in words) is (target == "rewound" and not scored and name != "dense")
    assert words.startswith("pruned network") is (target == "trained")
