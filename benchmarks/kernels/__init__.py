"""The compiled kernels and the runtime against torch.nn, ONNX Runtime, JAX and Keras."""
