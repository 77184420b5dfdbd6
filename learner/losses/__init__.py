"""Pure functions of tensors: no configuration, module, logger or device."""
