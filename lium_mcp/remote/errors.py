"""The one exception of work on a pod."""


class RemoteError(Exception):
    """Work on a pod that could not be done.

    Neither sentence ever holds a command, a key, or a text that came from the pod.

    Args:
        code: Stable, for programs.
        happened: One sentence: what happened.
        advice: One sentence: what to do next.
        effect: One sentence: what was changed, if that is not "nothing".
    """

    def __init__(self, code: str, happened: str, advice: str, *, effect: str | None = None) -> None:
        super().__init__(happened)
        self.code = code
        self.happened = happened
        self.advice = advice
        self.effect = effect


def connection_lost(pod: str) -> RemoteError:
    """The connection broke while something was under way."""
    return RemoteError(
        "connection_lost",
        f"The SSH connection to {pod} was lost.",
        "Look at the state on the pod before doing it again; get_pod shows whether the pod still runs.",
        effect="Whether what was under way took effect is not known.",
    )
