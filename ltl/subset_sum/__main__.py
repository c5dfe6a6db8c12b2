"""`python -m ltl.subset_sum FOLDER`: a trained network replaced by subset sums of random numbers, weight by weight."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ltl.errors import LtlError


def main(arguments: Sequence[str] | None = None) -> int:
    """Replace the trained network that `arguments` name; return the exit code."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when PyTorch is imported
    try:
        if min(options.n) < 1:
            raise LtlError(f"--n {min(options.n)} is not possible: a sum needs 1 product or more.")
        if not options.epsilon > 0:
            raise LtlError(f"--epsilon {options.epsilon} is not possible: the error allowed is a number above 0.")
        _run(options)
    except (LtlError, OSError) as error:
        print(f"ltl-subset-sum: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ltl-subset-sum",
        description="Replaces every weight of a trained perceptron without biases (a run with ends=true) by the best "
        "subset sum of n products of random numbers, and by the best single product, and writes subset_sum.csv, "
        "figures and the masked random networks as tickets (Pensia et al. 2020; Malach et al. 2020).",
    )
    parser.add_argument("trained", type=Path, metavar="FOLDER", help="a run folder with one trained network")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: FOLDER)")
    parser.add_argument(
        "--n", nargs="+", type=int, default=[4, 8, 12, 16, 21], help="products for each weight (21, as published; ≤ 24)"
    )
    parser.add_argument("--epsilon", type=float, default=0.01, help="error allowed of a weight (0.01, as published)")
    parser.add_argument("--seed", type=int, default=0, help="of the random networks (0)")
    return parser


def _run(options: argparse.Namespace) -> None:
    from rich.progress import track

    from ltl import rebuild
    from ltl.console import print_table, terminal
    from ltl.nearest_subset import MOST
    from ltl.report.verdict import data_cautions, too_small
    from ltl.report.words import count, dataset_words, model_words, percent
    from ltl.results import write_table
    from ltl.subset_sum.figure import WORDS, draw_accuracy, draw_error
    from ltl.subset_sum.measure import RULES, Measured, accuracy_of, measure
    from ltl.tickets import load, save

    if max(options.n) > MOST:
        raise LtlError(f"--n {max(options.n)} is not possible: at most {MOST}, as work and memory grow as 2^(n/2).")
    path, out = _trained(options.trained), options.out or options.trained
    trained = load(path)
    dataset = rebuild.dataset_of(trained)
    before = accuracy_of(rebuild.network(trained, dataset), dataset)
    console, found, files = terminal(), [], []
    cases = [(rule, n) for n in sorted(set(options.n)) for rule in RULES]
    for rule, n in track(cases, "replacing weights", console=console, disable=not console.is_terminal):
        one, ticket = measure(trained, dataset, before, rule=rule, n=n, epsilon=options.epsilon, seed=options.seed)
        found.append(one)
        if rule == "subset":
            files.append(out / "subset_sum" / f"n-{n:02d}.safetensors")
            save(ticket, files[-1])
    write_table(out / "subset_sum.csv", Measured._fields, [one._asdict() for one in found])
    model, data = rebuild.names(trained)
    subtitle = f"{model_words(model)} on {dataset_words(data)} · {count(found[0].target_weights)} weights · one network"
    cautions = data_cautions(canonical=dataset.canonical, no_verdict=too_small(len(dataset.test.targets)))
    for draw in (draw_error, draw_accuracy):
        files += draw(found, subtitle, cautions, out / "figures").paths
    header = ["rule", "n", "products", "kept", "of target (%)", "median error", "p99", "max", "above ε"]
    header += ["accuracy before (%)", "after (%)", "seconds"]
    table = [
        [
            WORDS[one.rule], str(one.n), count(one.products), count(one.products_kept),
            percent(one.products_kept / one.target_weights),
            *(f"{error:.1e}" for error in (one.error_median, one.error_p99, one.error_max)),
            count(one.missed * one.products / one.n), f"{100 * one.test_accuracy_before:.2f}",
            f"{100 * one.test_accuracy:.2f}", f"{one.seconds:.1f}",
        ]
        for one in found
    ]  # fmt: skip
    print_table(console, header, table, left=(header[0],))
    for file in (out / "subset_sum.csv", *files):
        console.print(str(file), highlight=False, markup=False, soft_wrap=True)


def _trained(folder: Path) -> Path:
    """Return the file of the one trained network of a run folder; LtlError if it has none or several."""
    paths = sorted(folder.glob("ends/trial-*/ticket-*.safetensors"))
    if len(paths) == 1:
        return paths[0]
    if not paths:
        raise LtlError(f"{folder}: no trained weights here (ends/trial-*/ticket-*.safetensors); run with ends=true.")
    raise LtlError(f"{folder}: {len(paths)} trained networks, where one is needed: run with trials=1 and pruner=dense.")


if __name__ == "__main__":
    sys.exit(main())
