"""The port beside the TensorFlow originals: which cases, what each side gives, the verdict."""
