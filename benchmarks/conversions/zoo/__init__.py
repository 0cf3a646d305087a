"""The models of the conversions' table; imported inside a TensorFlow environment.

Each function builds one Keras model, in Keras 2.15 and in Keras 3. A name that ends in ``_keras3``
uses what Keras 3 alone has.
"""
