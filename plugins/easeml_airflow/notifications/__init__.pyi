from .base import EasemlNotifier as EasemlNotifier
from .channels import FunctionNotifier as FunctionNotifier
from .channels import MailNotifier as MailNotifier
from .channels import WebhookNotifier as WebhookNotifier
