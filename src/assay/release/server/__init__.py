"""One version of a model as a service: validated requests in, scores out, replaced without a failed request."""
