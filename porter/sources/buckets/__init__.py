"""Buckets (S3, Google Cloud, Azure) and plain HTTPS: what lies there is read by ranges through obstore."""
