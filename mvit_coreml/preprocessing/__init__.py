"""Images in, model input out: image processors, loading, resizing and cropping."""
