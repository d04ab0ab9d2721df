"""Words that this project no longer uses, each with the field's own word; `docs/dev/decisions/0017-words.md` has the reasons.

Whole words, in any case, in file names, code, comments, printed text and documentation; `_` separates words in names.
"""

RETIRED = {
    "hope": "prediction interval",
    "hoped": "prediction interval",
    "lever": "ablation",
    "levers": "ablations",
    "chain": "post-processing pipeline",
    "chains": "post-processing pipelines",
    "trunk": "backbone",
    "trunks": "backbones",
    "digest": "checksum",
    "digests": "checksums",
    "policy": "augmentation preset",
    "policies": "augmentation presets",
    "mirror": "hflip, horizontal flip",
    "mirrored": "flipped",
    "splice": "same_class_halves",
    "redrawn": "reshuffled",
    "re-estimated": "recalibrated",
    "bundle": "checkpoint",
    "bundles": "checkpoints",
    "crew": "worker pool",
    "leash": "parent pipe",
    "descent": "train_epoch",
    "lesson": "pseudo-labels",
    "taught": "trained on pseudo-labels",
    "photo": "image",
    "photos": "images",
    "anew": "again",
    "begun": "started",
    "mend": "fix",
    "mended": "fixed",
    "verb": "command",
    "verbs": "commands",
    "rival": "baseline",
    "rivals": "baselines",
    "whoever": "name the subject",
    "halving": "frozen-feature cache",
    "specimens": "example figures",
    "strangers": "unknown, untrusted",
    "flattered": "optimistic",
}

# word -> files (as in git) where it is legitimate, and why
HASHLIB = "hashlib's method"
NAMES = "names of ImageNet's classes"
LEGITIMATE: dict[str, dict[str, str]] = {
    "digest": {
        "benchmarks/pack.py": HASHLIB,
        "src/driverwatch/data/images.py": HASHLIB,
        "src/driverwatch/ensemble/embedding_index.py": HASHLIB,
        "src/driverwatch/io/manifests.py": HASHLIB,
        "src/driverwatch/models/weight_files.py": HASHLIB,
        "src/driverwatch/report/serve.py": HASHLIB,
    },
    "policy": {
        "src/driverwatch/models/backend.py": "Keras' dtype policy",
        "src/driverwatch/report/serve.py": "HTTP's Content-Security-Policy and others",
    },
    "mirrored": {
        "src/driverwatch/models/devices.py": "TensorFlow's MirroredStrategy",
        "docs/dev/decisions/0016-several-devices.md": "TensorFlow's MirroredStrategy",
    },
    "chain": {"src/driverwatch/inference/imagenet_classes.csv": NAMES},
    "mirror": {"src/driverwatch/inference/imagenet_classes.csv": NAMES},
    "trunks": {"src/driverwatch/inference/imagenet_classes.csv": NAMES},
}
