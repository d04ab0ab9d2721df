"""The labelled images' rows beside a submission, so that its score and interval can be computed again without its runs."""

import gzip

import pandas as pd

from driverwatch.artifacts import digest_of_file
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.dataset_settings import class_columns
from driverwatch.steps.chains import Chain
from driverwatch.steps.context import Context
from driverwatch.writing import replacing


def write_out_of_fold(context: Context, name: str, chain: Chain, pack: Pack, folds: FoldTable) -> str:
    """Write `submissions/<dataset>/out_of_fold/<name>.csv.gz`; returns the file's digest.

    One line per labelled image: its name, driver, class and fold, and a probability per class, by models and a chain that
    were fitted on the other folds, clipped as the submission is. Their mean log loss is the manifest's `out_of_fold_log_loss`.
    """
    classes = list(context.settings.classes)
    frame = pd.DataFrame(chain.rows, columns=class_columns(classes))
    frame.insert(0, context.settings.columns.image, pack.names)
    frame.insert(1, "driver", pack.drivers)
    frame.insert(2, "class", [classes[label] for label in pack.labels])
    frame.insert(3, "fold", [folds.of_driver[driver] for driver in pack.drivers])
    text = frame.to_csv(index=False, float_format="%.6f", lineterminator="\n")
    path = context.places.out_of_fold(name)
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))  # the same bytes whenever it is written
    return digest_of_file(path)
