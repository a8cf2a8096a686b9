"""A pod and its containers from creation to end, as steps that can be rolled back."""
