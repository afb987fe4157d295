"""Makes sharded TFRecord files: python -m data.build_tfrecords --source=folder:PATH --out=DIR

Every picture is looked at once; what cannot be decoded is listed in DIR/bad_images.csv and left out.  The same command
goes on where it was killed, or says that the build is finished.  Train on the result by --dataset=tfrecord:DIR.
"""

import os
import sys
import time
from dataclasses import fields

from absl import flags

from data import cli
from data.tfrecord_builder import ON_BAD, SHARD_SIZE, Build, Request, locked, open_source

flags.DEFINE_string("source", None, "The pictures: folder:PATH | list:FILE | any other data set of encoded pictures.")
flags.DEFINE_string("out", None, "Folder for the files; a new one, or that of the same build.")
flags.DEFINE_integer("shards", 0, f"Files of the train split. Default: {SHARD_SIZE // 10**6} MB each.")
flags.DEFINE_integer("test_shards", 0, "Files of the test split. Default: by size as well.")
flags.DEFINE_integer("workers", 0, "Threads that read and decode; 0: one a core.")
flags.DEFINE_integer("seed", 0, "Of the order that the pictures are written in.")
flags.DEFINE_string("on_bad", "skip", f"{' | '.join(ON_BAD)}: leave bad pictures out, or end when all are known.")
flags.DEFINE_string("image_root", None, "Folder that the paths of list:FILE start from. Default: the file's own.")


def main():
    """Flags -> build; returns the result."""
    started = time.monotonic()
    request = Request(**{field.name: flags.FLAGS[field.name].value for field in fields(Request)})
    dataset = open_source(request)
    with locked(request.out):
        build = Build(request, dataset)
        if build.finished():
            print(f"{request.out} is finished", file=sys.stderr)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # pictures are decoded by the processor
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what is broken is told in other words
            cli.load_tensorflow(deterministic=True)
            build.run()
        return {**build.result(), "seconds": round(time.monotonic() - started, 1)}


if __name__ == "__main__":
    cli.run(main, resumes=True)
