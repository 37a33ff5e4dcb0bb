"""Diffusion on tensors (batch, *dims): a schedule, a denoiser on it, samplers, objective and likelihood."""

from dposer.diffusion.denoiser import Denoiser
from dposer.diffusion.likelihood import bits_per_dim, log_likelihood
from dposer.diffusion.objective import denoising_loss, draw_times
from dposer.diffusion.ode import ode_encode, ode_sample
from dposer.diffusion.samplers import sample, time_nodes
from dposer.diffusion.schedule import VESDE, VPSDE, DiscreteSchedule, Schedule, SubVPSDE, make_schedule

__all__ = [
    "VESDE",
    "VPSDE",
    "Denoiser",
    "DiscreteSchedule",
    "Schedule",
    "SubVPSDE",
    "bits_per_dim",
    "denoising_loss",
    "draw_times",
    "log_likelihood",
    "make_schedule",
    "ode_encode",
    "ode_sample",
    "sample",
    "time_nodes",
]
