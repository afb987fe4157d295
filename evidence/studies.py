"""The studies, in the order in which they are made: what is asked, of which arms, and what is expected."""

from evidence.study import Arm, Comparison, Measure, Study

KNN = {"kNN": Measure("knn"), "nearest": Measure("nearest")}
JUDGED = {"knn": ("--protocol=knn", "--tau=0.1"), "nearest": ("--protocol=knn", "--neighbors=1")}

DIGITS = Study(
    name="digits",
    title="The methods on the digits",
    text="Scikit-learn's handwritten digits by the flags of the quickstart.",
    flags=("--flagfile=quickstart.flags",),
    arms=(
        Arm("la", ("--method=la",)),
        Arm("ir", ("--method=ir",)),
    ),
    seeds=(0, 1, 2, 3, 4),
    evaluations={**JUDGED, "density": ()},
    measures={**KNN, "local density": Measure("density", ("local",), points=False)},
    comparisons=(Comparison("la", "ir", "kNN", "LA above IR", paper="45.0 > 41.0"),),
)

STUDIES = {study.name: study for study in (DIGITS,)}
