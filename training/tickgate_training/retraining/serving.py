"""What the repository says serves: the champion, and the shadow."""

from dataclasses import dataclass

from tickgate_server.models import aliases
from tickgate_server.models.package import versions
from tickgate_training.retraining.config import RetrainConfig
from tickgate_training.retraining.errors import ChampionMissing


@dataclass(frozen=True, slots=True)
class Serving:
    """What the repository says serves.

    Attributes:
        champion: Version in production.
        named: Whether the alias names it; else it is the highest version that no alias names.
        shadow: Version that is the shadow; None: none.
    """

    champion: int
    named: bool
    shadow: int | None


def serving(config: RetrainConfig) -> Serving:
    """What serves now.

    Raises:
        ChampionMissing: Nothing does.
        AliasesInvalid: The file of aliases cannot be read.
    """
    package = config.training.package
    found = aliases.read_aliases(config.model_folder) or aliases.Aliases()
    if found.production is not None:
        return Serving(found.production, named=True, shadow=found.shadow)
    others = {found.shadow, None if found.canary is None else found.canary.version}
    free = [version for version in versions(package.repository, package.name) if version not in others]
    if not free:
        raise ChampionMissing(package.repository, package.name)
    return Serving(max(free), named=False, shadow=found.shadow)
