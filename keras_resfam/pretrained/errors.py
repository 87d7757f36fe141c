"""Errors that users may want to catch by name."""


class HubError(OSError):
    """Raised when the Hugging Face Hub does not deliver the files asked for.

    The message states the repository, the revision, the cause and a remedy.
    """

    @classmethod
    def about(cls, repository, revision, cause, remedy):
        """Returns the error whose message has these four lines."""
        return cls(
            "The Hugging Face Hub did not do what it was asked.\n"
            f"Repository: {repository}\nRevision: {revision}\n"
            f"Cause: {cause}\nRemedy: {remedy}"
        )
