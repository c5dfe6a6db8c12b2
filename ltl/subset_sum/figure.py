"""The figures of subset sums: error of a weight against the number of products, and accuracy."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from ltl.report.axes import percent_axis
from ltl.report.canvas import COLOURS, GREY, MARKERS, Drawing, Sheet, Words, canvas, legend, save
from ltl.report.widths import WIDTHS
from ltl.subset_sum.measure import Measured

WORDS = {"subset": "best subset", "single": "best single product"}


def draw_error(measured: Sequence[Measured], subtitle: str, cautions: Sequence[str], folder: Path) -> Drawing:
    """Draw median and 99th percentile of |weight − sum| against n, on a log axis, for each rule."""
    sheet = Sheet(folder, WIDTHS["page"], pdf=True)
    caption = (
        "Distance of a weight from the best sum of n random products: median (full lines) and 99th percentile (dashed) "
        "over all weights of the trained network."
    )
    data = []
    with canvas(sheet) as (figure, axes):
        axes.set_yscale("log")
        for index, (rule, words) in enumerate(WORDS.items()):
            rows = sorted((one for one in measured if one.rule == rule), key=lambda one: one.n)
            for name, style in (("median", "-"), ("p99", "--")):
                label = f"{words}, {'median' if name == 'median' else '99th percentile'}"
                values = [getattr(one, f"error_{name}") for one in rows]
                axes.plot(
                    [one.n for one in rows], values, style, color=COLOURS[index], marker=MARKERS[index], label=label
                )
                data += [
                    {"rule": rule, "quantile": name, "n": one.n, "unit": "weight", "error": value}
                    for one, value in zip(rows, values, strict=True)
                ]
        axes.axhline(measured[0].epsilon, color=GREY, linestyle=(0, (1, 2)), linewidth=1.3, label="error allowed")
        _axis_of_n(axes, measured)
        axes.set_ylabel("|weight − sum|")
        legend(figure, axes)
        return save(figure, sheet, "subset_sum_error", Words("Error of subset sums", subtitle, caption, cautions), data)


def draw_accuracy(measured: Sequence[Measured], subtitle: str, cautions: Sequence[str], folder: Path) -> Drawing:
    """Draw test accuracy (%) of the masked random networks against n, and the trained network's as a line."""
    sheet = Sheet(folder, WIDTHS["page"], pdf=True)
    caption = (
        "Test accuracy of the masked random network in which every weight of the trained one is the best sum of n "
        "random products."
    )
    data = []
    with canvas(sheet) as (figure, axes):
        before = 100 * measured[0].test_accuracy_before
        axes.axhline(before, color=GREY, linestyle=(0, (4, 2)), linewidth=1.3, label="trained network")
        for index, (rule, words) in enumerate(WORDS.items()):
            rows = sorted((one for one in measured if one.rule == rule), key=lambda one: one.n)
            values = [100 * one.test_accuracy for one in rows]
            axes.plot([one.n for one in rows], values, color=COLOURS[index], marker=MARKERS[index], label=words)
            data += [
                {"rule": rule, "n": one.n, "unit": "%", "test_accuracy": value, "trained": before}
                for one, value in zip(rows, values, strict=True)
            ]
        _axis_of_n(axes, measured)
        percent_axis(axes, "test accuracy")
        legend(figure, axes)
        return save(
            figure, sheet, "subset_sum_accuracy", Words("Accuracy of subset sums", subtitle, caption, cautions), data
        )


def _axis_of_n(axes: Axes, measured: Sequence[Measured]) -> None:
    axes.set_xticks(sorted({one.n for one in measured}))
    axes.set_xlabel("n: random products for each weight")
