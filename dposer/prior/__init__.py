"""dposer.prior"""
