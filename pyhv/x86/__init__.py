"""Architecture facts that both backends use: registers, CPUID, MSRs, paging, descriptors, exceptions."""
