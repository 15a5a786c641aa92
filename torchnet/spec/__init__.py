"""What people asked for: a frozen `torchnet.spec.model.JobSpec`, and the origin of each of its values.

Nothing is imported here, so that the command line's help can read `torchnet.spec.fields` without pydantic.
"""
