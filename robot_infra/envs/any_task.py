"""Any Gymnasium task in the form that `GymnasiumRobot` reads: named images, one state vector, a prompt, success."""

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import msgspec
import numpy as np
from gymnasium import spaces
from PIL import Image

from serl_launcher.config.environment import EnvironmentConfig
from serl_launcher.errors import ConfigError

RENDER = "render"
PROMPT_LENGTH = 200
MODELS = ("model", "_env.physics.model")
"""Where MuJoCo's model is: Gymnasium's own tasks, and those of dm_control."""
_SUCCESS = ("success", "is_success", "succeed")
"""What tasks call it when they are solved."""


class TaskOptions(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Everything below `environment.options` of `environment.name=gymnasium`."""

    id: str
    """Id in Gymnasium's registry, e.g. `FetchReach-v4`."""
    module: str = ""
    """Package whose import registers the id, e.g. `gymnasium_robotics`."""
    make: dict[str, Any] = {}
    """Further arguments of `gymnasium.make`."""
    wrapper: str = ""
    """Dotted name of a Gymnasium wrapper that is put around the task first, e.g. one that takes a batch axis away."""
    images: dict[str, str] = {}
    """Camera name to where its pictures are: `render`, or a path in the observation such as `pixels/top`."""
    state: list[str] = []
    """Paths of the observation that make the state, in this order; empty: everything that is no image."""
    state_names: list[str] = []
    """One name per state dimension; empty: `s0`, `s1`, ..."""
    action_names: list[str] = []
    """One name per action; empty: `a0`, `a1`, ... Those of states where actions are positions that the state holds."""
    action_low: list[float] = []
    action_high: list[float] = []
    """Narrower bounds of the actions; empty: the task's own. Where both are equal the action is no choice of the
    robot's: the task is commanded that value."""
    prompt: str = ""
    """Instruction, where environment.prompts is empty; empty: the task's own attribute `prompt`, if it has one."""
    success_reward: float | None = None
    """Reward from which the task counts as solved, where the task itself says nothing."""
    terminates_on_success: bool = True
    fast_rendering: bool = True
    """MuJoCo tasks: neither shadows nor multisampling, about 8 times faster without a GPU."""


class AnyTask(gymnasium.Wrapper[dict[str, Any], np.ndarray, Any, Any]):
    """The task with observations `{<camera>: image, "state": float32 [S], "prompt": text}`."""

    def __init__(self, env: gymnasium.Env[Any, Any], options: TaskOptions, *, image_size: tuple[int, int]) -> None:
        """Wraps a task; draws one observation space from its spaces.

        Raises:
            ConfigError: The task has actions or observations that no robot has, or a path leads nowhere.
        """
        super().__init__(env)
        self._options, self._size = options, image_size
        if not isinstance(env.action_space, spaces.Box) or len(env.action_space.shape) != 1:
            raise ConfigError(f"{options.id}: expected a vector of continuous actions, got {env.action_space}.")
        if not np.isfinite([env.action_space.low, env.action_space.high]).all():
            raise ConfigError(f"{options.id}: expected bounded actions, got {env.action_space}.")
        self._commands = _Commands(env.action_space, options)
        self.action_space = self._commands.space
        pictures = {path for path in options.images.values() if path != RENDER}
        self._state_paths = options.state or [path for path in leaves(env.observation_space) if path not in pictures]
        width = sum(int(np.prod(self._space(path).shape or (1,))) for path in self._state_paths)
        picture = spaces.Box(0, 255, (image_size[1], image_size[0], 3), np.uint8)
        self.observation_space = spaces.Dict(
            {
                **dict.fromkeys(options.images, picture),
                "state": spaces.Box(-np.inf, np.inf, (width,), np.float32),
                "prompt": spaces.Text(PROMPT_LENGTH, min_length=0),
            }
        )
        self._prompt = options.prompt or str(getattr(env.unwrapped, "prompt", ""))
        self.state_names = tuple(options.state_names or (f"s{i}" for i in range(width)))
        self.action_names = tuple(options.action_names or (f"a{i}" for i in range(self.action_space.shape[0])))
        if len(self.state_names) != width or len(self.action_names) != self.action_space.shape[0]:
            raise ConfigError(
                f"{options.id} has {width} state dimensions and {self.action_space.shape[0]} actions; options name "
                f"{len(self.state_names)} and {len(self.action_names)}."
            )

    def reset(self, **arguments: Any) -> tuple[dict[str, Any], dict[str, Any]]:  # Any: Gymnasium's own signature.
        """Begins an episode."""
        observation, found = self.env.reset(**arguments)
        return self._translated(observation), found

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Plays one tick; `success` in the last dictionary says whether the task is solved."""
        observation, reward, terminated, truncated, found = self.env.step(self._commands.full(action))
        success = any(bool(found.get(name, False)) for name in _SUCCESS)
        if self._options.success_reward is not None:
            success = success or float(reward) >= self._options.success_reward
        terminated = bool(terminated) or (success and self._options.terminates_on_success)
        return self._translated(observation), float(reward), terminated, bool(truncated), {"success": success}

    def render(self) -> Any:  # Any: Gymnasium's own signature.
        """Returns a picture of the scene; of the first camera where the task renders nothing."""
        return self.env.render()

    def _space(self, path: str) -> spaces.Space[Any]:
        space = self.env.observation_space
        for name in path.split("/") if path else []:
            if not isinstance(space, spaces.Dict) or name not in space.spaces:
                known = list(leaves(self.env.observation_space))
                raise ConfigError(f"{self._options.id}: the observation has no {path!r}; it has {known}.")
            space = space[name]
        return space

    def _translated(self, observation: Any) -> dict[str, Any]:  # Any: whatever the task observes.
        parts = [np.asarray(at(observation, path), np.float32).reshape(-1) for path in self._state_paths]
        images = {
            name: self._picture(self.env.render() if path == RENDER else at(observation, path))
            for name, path in self._options.images.items()
        }
        state = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        return {**images, "state": state, "prompt": self._prompt}

    def _picture(self, picture: Any) -> np.ndarray:  # Any: what a task takes for a picture.
        if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[2] != 3:
            raise ConfigError(
                f"{self._options.id}: expected pictures (height, width, 3), got {type(picture).__name__}."
            )
        if picture.dtype != np.uint8:
            picture = np.clip(255 * picture, 0, 255).astype(np.uint8)
        if (picture.shape[1], picture.shape[0]) == self._size:
            return np.ascontiguousarray(picture)
        return np.asarray(Image.fromarray(picture).resize(self._size, Image.Resampling.BILINEAR))


class _Commands:
    """The robot's actions among the task's: within narrower bounds, and without those that are no choice."""

    def __init__(self, space: spaces.Box, options: TaskOptions) -> None:
        low = np.asarray(options.action_low or space.low, np.float32)
        high = np.asarray(options.action_high or space.high, np.float32)
        if low.shape != space.shape or high.shape != space.shape:
            raise ConfigError(
                f"{options.id} has {space.shape[0]} actions; action_low and action_high give {len(low)} and "
                f"{len(high)}."
            )
        if (low > high).any() or (low < space.low).any() or (high > space.high).any():
            raise ConfigError(
                f"{options.id}: action_low and action_high must lie within {space}, got {low.tolist()} and "
                f"{high.tolist()}."
            )
        self._fixed, self._chosen = low, low < high
        self.space = spaces.Box(low[self._chosen], high[self._chosen], dtype=np.float32)

    def full(self, action: np.ndarray) -> np.ndarray:
        """Returns the task's action."""
        command = self._fixed.copy()
        command[self._chosen] = action
        return command


def make(config: EnvironmentConfig) -> AnyTask:
    """Returns the task that `environment.options` names.

    Raises:
        ConfigError: Its package is not installed, its id is unknown, or an option is wrong.
    """
    try:
        options = msgspec.convert(config.options, TaskOptions)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"environment.options of gymnasium: {exc}.") from exc
    if set(options.images) != set(config.image_keys):
        raise ConfigError(
            f"environment.image_keys are {config.image_keys}, environment.options.images has {sorted(options.images)}."
        )
    arguments = dict(options.make)
    if RENDER in options.images.values():
        arguments.setdefault("render_mode", "rgb_array")
    try:
        if options.module:
            gymnasium.register_envs(importlib.import_module(options.module))
        env = gymnasium.make(options.id, max_episode_steps=config.max_episode_length, **arguments)
        if options.wrapper:
            env = _named(options.wrapper)(env)
    except ImportError as exc:
        raise ConfigError(
            f"{options.id} needs the package {options.module or 'of its id'}: {exc}. Install it beside hiors."
        ) from exc
    except gymnasium.error.Error as exc:
        raise ConfigError(f"{options.id}: {exc}") from exc
    except (RuntimeError, OSError) as exc:  # Simulators that find no graphics device, or not their files.
        raise ConfigError(f"{options.id} cannot start on this machine: {exc}") from exc
    if options.fast_rendering:
        render_fast(env)
    width, height = config.image_size
    return AnyTask(env, options, image_size=(width, height))


def _named(name: str) -> Callable[[gymnasium.Env[Any, Any]], gymnasium.Env[Any, Any]]:
    module, _, attribute = name.rpartition(".")
    wrapper = getattr(importlib.import_module(module or "gymnasium.wrappers"), attribute, None)
    if wrapper is None:
        raise ConfigError(f"environment.options.wrapper: {module or 'gymnasium.wrappers'} has no {attribute!r}.")
    return wrapper


def render_fast(env: gymnasium.Env[Any, Any]) -> None:
    """Switches shadows and multisampling of a MuJoCo task off, before its first picture; does nothing to others."""
    for path in MODELS:
        found: Any = env.unwrapped  # Any: whatever a simulator is made of.
        for name in path.split("."):
            found = getattr(found, name, None)
        if hasattr(found, "light_castshadow"):
            found.light_castshadow[:] = 0
            found.vis.quality.offsamples = 0
            return


def leaves(space: spaces.Space[Any], path: str = "") -> Iterator[str]:
    """Yields the paths of all vectors in an observation space; an empty path is the observation itself."""
    if isinstance(space, spaces.Dict):
        for name, inner in space.spaces.items():
            yield from leaves(inner, f"{path}/{name}" if path else name)
    elif not is_image(space):
        yield path


def is_image(space: spaces.Space[Any]) -> bool:
    """Whether a space holds pictures."""
    return isinstance(space, spaces.Box) and len(space.shape) == 3


def at(observation: Any, path: str) -> Any:  # Any: whatever the task observes.
    """Returns the part of an observation at a path such as `pixels/top`."""
    for name in path.split("/") if path else []:
        observation = observation[name]
    return observation
