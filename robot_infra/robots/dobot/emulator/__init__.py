"""A cell without metal: controllers, grippers, cameras and leader arms that speak the real protocols."""
