"""The page that the teacher serves at ``/``, for people without rights in Prefect; it can only be read."""
