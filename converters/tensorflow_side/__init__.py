"""The TensorFlow side of conversions: runs where TensorFlow is, needs neither torch nor torchfgsm.

A worker process loads it through ``export_worker.py``; a process that has TensorFlow itself imports
it as part of ``torchfgsm.converters``. Its modules import each other relatively for that reason.
"""
