"""Every error that hiors raises on purpose.

HiorsError
├── ConfigError          a setting is unknown, has the wrong type or contradicts another (also a ValueError)
├── SpecMismatch         two sides disagree about the robot: names, shapes, units, rates
├── TransportError       the network
│   ├── ProtocolError    a message cannot be understood, or comes from another protocol version
│   ├── DeadlineExceeded no answer in time
│   ├── SessionFenced    a newer session of the same actor exists, or the id is taken
│   └── Refused          the other side understood and said no
├── DatasetError         a replay or demonstration dataset is damaged or does not fit
├── CheckpointError      weights do not fit, are incomplete or do not match their checksum
├── PolicyError          the policy cannot answer: not loaded, out of memory, not finite
├── SpoolFull            the actor's disk spool reached its limit
├── RobotError           a robot, a camera or an input device is missing, silent or refuses
└── SafetyError          a command must not reach the robot
    └── RecordingError   what was sensed, done or judged cannot be recorded; the robot holds still
"""


class HiorsError(Exception):
    """Root of all errors that hiors raises on purpose."""


class ConfigError(HiorsError, ValueError):
    """A setting is unknown, has the wrong type or contradicts another."""


class SpecMismatch(HiorsError):
    """Two sides disagree about the robot: names, shapes, units, rates."""


class TransportError(HiorsError):
    """Something on the network went wrong."""


class ProtocolError(TransportError):
    """A message cannot be understood, or comes from another protocol version."""


class DeadlineExceeded(TransportError):
    """No answer came within the time allowed."""


class SessionFenced(TransportError):
    """A newer session of the same actor exists, or its id is in use."""


class Refused(TransportError):
    """The other side understood the request and said no."""


class DatasetError(HiorsError):
    """A dataset is damaged or does not fit the robot."""


class CheckpointError(HiorsError):
    """Weights do not fit, are incomplete or do not match their checksum."""


class PolicyError(HiorsError):
    """The policy cannot answer: not loaded, out of memory, not finite."""


class SpoolFull(HiorsError):
    """The disk spool of an actor reached its limit."""


class SafetyError(HiorsError):
    """A command must not reach the robot."""


class RecordingError(SafetyError):
    """What was sensed, done or judged cannot be recorded, e.g. a reward that is no number; the robot holds still."""


class RobotError(HiorsError):
    """A robot, a camera or an input device is missing, silent or refuses."""
