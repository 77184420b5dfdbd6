"""When the policy learns, among the updates of its critics."""

from serl_launcher.config.sac import SacConfig


class PolicyTurns:
    """Every `cta_ratio`-th critic update is followed by one of the policy, once the critics have learned alone.

    A turn that failed stays due: otherwise critic updates that succeed would hide a policy that no longer learns.
    """

    def __init__(self, config: SacConfig) -> None:
        """Reads `cta_ratio` and `actor_training_starts`."""
        self._config = config
        self._is_due = False

    def is_due(self, num_critic_updates: int) -> bool:
        """Returns whether the policy learns now; ask after each critic update, `num_critic_updates` counts it."""
        starts = num_critic_updates > self._config.actor_training_starts
        self._is_due = self._is_due or (starts and num_critic_updates % self._config.cta_ratio == 0)
        return self._is_due

    def take(self) -> None:
        """Notes that the policy has learned, or that its state was replaced."""
        self._is_due = False
