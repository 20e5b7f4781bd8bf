"""From a configuration to artifacts: planning, building, launching processes."""
