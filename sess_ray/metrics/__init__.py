"""The field's own measures of saliency maps, on arrays."""
