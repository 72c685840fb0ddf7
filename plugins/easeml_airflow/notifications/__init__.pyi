from .base import EasemlNotifier as EasemlNotifier
from .function import FunctionNotifier as FunctionNotifier
from .mail import MailNotifier as MailNotifier
from .webhook import WebhookNotifier as WebhookNotifier
