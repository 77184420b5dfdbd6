"""What a person beside a robot holds in the hand: keyboard, gamepad, SpaceMouse, leader arm; and grippers on a bus."""
