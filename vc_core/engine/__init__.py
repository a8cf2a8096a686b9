"""The implementation. Private: users import vc_core, plugin authors vc_core.spec."""
