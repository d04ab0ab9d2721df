"""Keras' backend: started without its chatter, made repeatable."""

import os
import sys
import tempfile


def start() -> None:
    """Import Keras and touch the device once, with stderr held back: TensorFlow logs a screenful of notes while it loads.

    What was held back is shown if the import fails.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            import keras

            keras.ops.zeros(1)
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def deterministic(seed: int) -> None:
    """Seed every library and ask for deterministic kernels where the backend must be asked (TensorFlow)."""
    import keras

    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
