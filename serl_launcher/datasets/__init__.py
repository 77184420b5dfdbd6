"""The LeRobot v3 dataset as hiors writes it. Imports pyarrow; nothing on a robot machine imports this package."""
