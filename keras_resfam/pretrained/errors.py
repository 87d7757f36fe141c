"""What users may want to catch by name."""


class HubError(OSError):
    """The Hub did not give what it was asked for.

    The text names repository, revision, cause and remedy.
    """

    @classmethod
    def about(cls, repository, revision, cause, remedy):
        return cls(
            "The Hugging Face Hub did not do what it was asked.\n"
            f"Repository: {repository}\nRevision: {revision}\n"
            f"Cause: {cause}\nRemedy: {remedy}"
        )
