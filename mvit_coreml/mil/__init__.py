"""A portable runtime for saved ML Programs, and the predictor that picks Core ML on a Mac."""
