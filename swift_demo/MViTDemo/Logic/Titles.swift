import MViTKit

extension ComputeUnits {
  /// Their name for people.
  var title: String {
    switch self {
    case .all: localized("All")
    case .cpuAndNeuralEngine: localized("CPU and Neural Engine")
    case .cpuAndGPU: localized("CPU and GPU")
    case .cpuOnly: localized("CPU only")
    }
  }
}

extension InputPath {
  /// Its name for people.
  var title: String {
    switch self {
    case .exact: localized("Exact")
    case .fast: localized("Vision")
    }
  }
}

extension ComputeDevice {
  /// Its name as people write it.
  var title: String {
    switch self {
    case .neuralEngine: localized("Neural Engine")
    case .gpu: localized("GPU")
    case .cpu: localized("CPU")
    }
  }
}

extension ComputePlanSummary {
  /// One line for each device.
  var lines: [String] {
    shares.map {
      localized(
        "%@: %@ of the work, %@ operations", $0.device.title, FigureFormat.percent($0.work),
        String($0.operations))
    }
  }
}

extension SelfTestReport {
  /// The verdict in a sentence.
  var verdictForPeople: String {
    if agrees { return localized("This device agrees with the Python side.") }
    let failed = checks.filter { !$0.agrees }.map(\.name).joined(separator: ", ")
    return localized("This device disagrees with the Python side: %@.", failed)
  }
}

extension PredictionTiming {
  /// What else an answer took, beside the prediction itself.
  var explanation: String {
    switch path {
    case .exact:
      decoding > 0
        ? localized(
          "decoding %@, resizing %@ more", FigureFormat.milliseconds(decoding),
          FigureFormat.milliseconds(resizing))
        : localized("resizing %@ more", FigureFormat.milliseconds(resizing))
    case .fast: localized("with Vision’s resizing")
    }
  }
}
