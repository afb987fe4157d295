"""Finds the pictures nearest to a picture: python -m la_tf.search --export=E --image=a.jpg[,b.jpg] [--out=sheet.png]

First, once, the index: --source=folder:PATH embeds all pictures below PATH and builds it, --embeddings=DIR builds it of
what la_tf.embed made; --add=folder:PATH adds the pictures that it does not have yet, without training. It lies in
EXPORT/index, or where --index says. The same command goes on where it was stopped. --kind: flat compares all rows;
ivf those in the lists nearest to the query (default above 100,000 pictures); hnsw walks a graph. --quantised takes a
quarter of the memory. Similarities are cosines.
"""

from absl import flags

from data import cli
from la_tf import picture_search, source_flags
from la_tf.picture_search import KINDS

flags.DEFINE_string("image", None, "Query pictures, a comma between them; a name with a comma in double quotes.")
flags.DEFINE_integer("nearest", 10, "Pictures to find for each.")
flags.DEFINE_string("out", None, "Draws queries and what was found to this file (.png, .svg, .pdf).")
flags.DEFINE_string("index", None, "The index's folder. Default: EXPORT/index.")
flags.DEFINE_string("embeddings", None, "Builds the index: a folder that la_tf.embed made by the same export.")
flags.DEFINE_string("add", None, "Adds pictures to the index: as --source.")
flags.DEFINE_boolean("rebuild", False, "Builds the index anew where there is one.")
flags.DEFINE_string("kind", None, f"{' | '.join(KINDS)}. Default: flat up to 100,000 pictures, ivf above.")
flags.DEFINE_boolean("quantised", False, "Stores a byte a component instead of four.")
flags.DEFINE_integer("lists", None, "ivf: lists. Default: 4 sqrt(N).")
flags.DEFINE_integer("links", None, "hnsw: neighbours of a picture. Default: 16.")
flags.DEFINE_integer("nprobe", None, "ivf: lists that are looked through. Default: found when the index is built.")
flags.DEFINE_integer("ef_search", None, "hnsw: candidates that are kept. Default: found when the index is built.")

NAMES = (
    "image", "nearest", "out", "index", "embeddings", "add", "rebuild", "kind", "quantised", "lists", "links", "nprobe",
    "ef_search",
)  # fmt: skip


def main():
    """Builds, adds and searches, whichever the flags ask for; returns what was found."""
    return picture_search.run(source_flags.values(*NAMES))


if __name__ == "__main__":
    cli.run(main, resumes=True)
